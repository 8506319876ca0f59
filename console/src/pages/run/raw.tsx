/** The run and its explanation as the API answers them. */
import { urlOf } from "../../lib/api";
import { Json } from "../../lib/json";
import { Copy } from "../../lib/ui";
import type { Known } from "./data";

export function RawTab({ known: { run, why } }: { known: Known }) {
  return (
    <>
      <Answer route={`/runs/${run.run_id}`} value={run} />
      <Answer route={`/runs/${run.run_id}/explain`} value={why} />
    </>
  );
}

function Answer({ route, value }: { route: string; value: unknown }) {
  return (
    <section class="card">
      <h2>
        <code>GET {route}</code> <Copy text={urlOf(route).href} what="the address" /> <Copy text={JSON.stringify(value, null, 2)} what="the answer">{"{ }"}</Copy>
      </h2>
      <Json value={value} open={2} />
    </section>
  );
}
