/** Is it healthy, and if not, what to do first. */
import { operates } from "../lib/operator";
import { OwnOverview } from "./overview/own";
import { ServerOverview } from "./overview/server";

export default function Overview() {
  return operates() ? <ServerOverview /> : <OwnOverview />;
}
