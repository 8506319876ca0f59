/** What an empty server shows: the line that makes the first run. */
import { ROOT, get, path, post } from "../../lib/api";
import { useLive } from "../../lib/live";
import { credential } from "../../lib/session";
import { Copy, Empty } from "../../lib/ui";

interface Found {
  assistant_id: string;
  graph_id: string;
}

interface Schemas {
  input_schema: { properties?: object } | null;
}

export function FirstRun() {
  const live = useLive(exampleRun, [], null);
  if (!live.data) return <Empty>No runs yet.</Empty>;
  const key = credential.value ? ` \\\n  -H 'X-Api-Key: '"$RUNLANE_API_KEY"` : "";
  const line = `curl ${new URL("runs/wait", ROOT).href}${key} \\\n  -H 'Content-Type: application/json' \\\n  -d '${JSON.stringify(live.data)}'`;
  return (
    <section class="card">
      <h2>Make the first run</h2>
      <p>
        The server answers, and its graph <b>{live.data.assistant_id}</b> waits for work. This line runs it and prints the result;
        the run appears here.
      </p>
      <div class="code-line">
        <pre>{line}</pre>
        <Copy text={line} what="the line" />
      </div>
      <p>
        Or use the <a href="#/playground">Playground</a>.
      </p>
    </section>
  );
}

const LOOKED_AT = 10;

/** Return a request that the server can execute: to a graph that talks, if one of the first ones does. */
async function exampleRun(stop: AbortSignal): Promise<{ assistant_id: string; input: object } | null> {
  const found = await post<Found[]>("/assistants/search", { limit: LOOKED_AT }, stop);
  for (const one of found) {
    const schemas = await get<Schemas>(path("/assistants/{}/schemas", one.assistant_id), {}, stop);
    if (!("messages" in (schemas.input_schema?.properties ?? {}))) continue;
    return { assistant_id: one.graph_id, input: { messages: [{ role: "user", content: "Hello" }] } };
  }
  return found[0] ? { assistant_id: found[0].graph_id, input: {} } : null;
}
