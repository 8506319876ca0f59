import { render } from "preact";
import { Frame } from "./frame";
import { askOtherTabs } from "./lib/session";

await askOtherTabs();
render(<Frame />, document.getElementById("app")!);
