/** What makes the first run: one line for this server, with an assistant that it has. */
import { ROOT, get, path, post } from "./api";
import { useLive } from "./live";
import { credential } from "./session";
import { Copy } from "./ui";

interface Found {
  graph: string;
  input: unknown;
}

interface Assistant {
  assistant_id: string;
  graph_id: string;
}

interface Schema {
  properties?: Record<string, { type?: string; default?: unknown; enum?: unknown[] }>;
  required?: string[];
}

const LOOKED_AT = 10;
const VALUES: Record<string, unknown> = { string: "text", integer: 1, number: 1, boolean: true, array: [], object: {} };

/** Return a request that the server can execute: to a graph that talks, if one of the first ones does. */
async function read(stop: AbortSignal): Promise<Found | null> {
  const order = { sort_by: "created_at", sort_order: "asc" };
  let first: Found | null = null;
  for (const one of await post<Assistant[]>("/assistants/search", { limit: LOOKED_AT, ...order }, stop)) {
    const { input_schema: schema } = await get<{ input_schema: Schema | null }>(path("/assistants/{}/schemas", one.assistant_id), {}, stop);
    const found = { graph: one.graph_id, input: example(schema ?? {}) };
    if (schema?.properties?.["messages"]) return found;
    first ??= found;
  }
  return first;
}

function example({ properties = {}, required = [] }: Schema): unknown {
  if (properties["messages"]) return { messages: [{ role: "user", content: "Hello" }] };
  const wanted = required.length ? required : Object.keys(properties).slice(0, 1);
  return Object.fromEntries(
    wanted.map((name) => {
      const { type = "string", default: given, enum: choices } = properties[name] ?? {};
      return [name, given ?? choices?.[0] ?? VALUES[type] ?? "text"];
    }),
  );
}

export function FirstRun() {
  const live = useLive(read, [], null);
  if (!live.data) return null;
  const { graph, input } = live.data;
  const body = JSON.stringify({ assistant_id: graph, input }).replaceAll("'", String.raw`'\''`);
  const auth = { key: ` -H "X-Api-Key: $KEY"`, bearer: ` -H "Authorization: Bearer $TOKEN"` };
  const line = `curl ${ROOT.href}runs/wait${credential.value ? auth[credential.value.kind] : ""} \\
  -H 'Content-Type: application/json' \\
  -d '${body}'`;
  return (
    <section class="card" aria-labelledby="first-run">
      <h2 id="first-run">Make the first run</h2>
      <p>
        No run was made yet. This line makes the first one, of <b>{graph}</b>:
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
