/** One assistant: its graph, what it takes, how it is configured, and its versions. */
import { useState } from "preact/hooks";
import { get, path, send } from "../../lib/api";
import { AssistantGraph } from "../../lib/assistant-graph";
import { Json } from "../../lib/json";
import { useLive } from "../../lib/live";
import { go, link } from "../../lib/route";
import { permits, seesPayload } from "../../lib/session";
import { AsCode, Button, Copy, Dialog, Empty, Head, Hidden, Loaded, Tabs, tabOf } from "../../lib/ui";
import { type Assistant, isSystem, readAssistant } from "./data";
import { Edit } from "./edit";
import { Versions } from "./versions";

const EVERY_MS = 10_000;
const TABS: [string, string][] = [
  ["graph", "Graph"],
  ["schemas", "Schemas"],
  ["configuration", "Configuration"],
  ["versions", "Versions"],
];

export function OneAssistant({ id }: { id: string }) {
  const live = useLive((stop) => readAssistant(id, stop), [id], EVERY_MS);
  const [asks, ask] = useState<"edit" | "delete">();
  const tab = tabOf(TABS, "graph");
  return (
    <Loaded live={live}>
      {(one) =>
        one ? (
          <>
            <Head title={<bdi class="title">{one.name}</bdi>} sentence={sentence(one)} live={live}>
              {permits("threads.create_run") && (
                <a class="button primary" href={link(["playground", one.assistant_id])}>
                  New run
                </a>
              )}
              <a class="button" href={link(["runs"], { assistant: one.assistant_id })}>
                Runs
              </a>
              {!isSystem(one) && permits("assistants.update") && <Button onClick={() => ask("edit")}>Edit</Button>}
              {!isSystem(one) && permits("assistants.delete") && (
                <Button kind="danger" onClick={() => ask("delete")}>
                  Delete
                </Button>
              )}
              <AsCode
                http={`GET /assistants/${one.assistant_id}`}
                cli={`runlane assistants show ${one.assistant_id}`}
                python={`await client.assistants.get("${one.assistant_id}")`}
              />
            </Head>
            <p class="under-head">
              <code>{one.assistant_id}</code> <Copy text={one.assistant_id} what={one.assistant_id} />
            </p>
            <Tabs names={TABS} chosen={tab} to={(name) => link(["assistants", id], { tab: name === "graph" ? undefined : name })} />
            {tab === "graph" && <AssistantGraph assistantId={one.assistant_id} version={one.version} />}
            {tab === "schemas" && <Schemas id={one.assistant_id} version={one.version} />}
            {tab === "configuration" && <Configuration assistant={one} />}
            {tab === "versions" && <Versions assistant={one} reload={live.reload} />}
            {asks === "edit" && <Edit assistant={one} graphs={[one.graph_id]} onClose={() => (ask(undefined), live.reload())} />}
            {asks === "delete" && <Delete assistant={one} onClose={() => ask(undefined)} />}
          </>
        ) : (
          <Empty>
            There is no assistant {id}, or it is not yours. <a href={link(["assistants"])}>Assistants</a>
          </Empty>
        )
      }
    </Loaded>
  );
}

function sentence(one: Assistant): string {
  const made = isSystem(one) ? "It is the server's own for this graph, and cannot be changed." : `Its version is ${one.version}.`;
  return `Runs graph ${one.graph_id}. ${made}${one.description ? ` ${one.description}` : ""}`;
}

const KINDS: [string, string][] = [
  ["input_schema", "Input"],
  ["output_schema", "Output"],
  ["state_schema", "State"],
  ["context_schema", "Context"],
  ["config_schema", "Configuration"],
];

function Schemas({ id, version }: { id: string; version: number }) {
  const live = useLive((stop) => get<Record<string, unknown>>(path("/assistants/{}/schemas", id), {}, stop), [id, version], null);
  return (
    <Loaded live={live}>
      {(schemas) => (
        <div class="beside">
          {KINDS.map(([name, label]) => (
            <section key={name}>
              <h2>{label}</h2>
              {schemas[name] ? <Json value={schemas[name]} open={2} /> : <p class="quiet">None.</p>}
            </section>
          ))}
        </div>
      )}
    </Loaded>
  );
}

function Configuration({ assistant }: { assistant: Assistant }) {
  if (!seesPayload.value) {
    return (
      <Empty>
        Configuration is payload: <Hidden />
      </Empty>
    );
  }
  const parts: [string, unknown][] = [
    ["Context", assistant.context],
    ["Configuration", assistant.config],
    ["Metadata", assistant.metadata],
  ];
  return (
    <div class="beside">
      {parts.map(([name, value]) => (
        <section key={name}>
          <h2>{name}</h2>
          <Json value={value} open={3} />
        </section>
      ))}
    </div>
  );
}

function Delete({ assistant, onClose }: { assistant: Assistant; onClose: () => void }) {
  const { assistant_id: id } = assistant;
  const [threads, setThreads] = useState(false);
  const act = async () => {
    await send("DELETE", path("/assistants/{}", id), { query: { delete_threads: threads || undefined } });
    go(["assistants"]);
  };
  return (
    <Dialog title={`Delete ${assistant.name}?`} onClose={onClose}>
      <p>Its {assistant.version} versions are deleted. Crons and clients that name it fail from then on. This cannot be undone.</p>
      <label class="check">
        <input type="checkbox" checked={threads} onChange={(event) => setThreads(event.currentTarget.checked)} />
        Also stop the runs of the threads that it ran on last, and delete these threads
      </label>
      <p class="actions">
        <Button kind="danger" onClick={act}>
          {threads ? "Delete it and its threads" : "Delete the assistant"}
        </Button>
        <Button onClick={onClose}>Keep it</Button>
        <AsCode
          http={`DELETE /assistants/${id}${threads ? "?delete_threads=true" : ""}`}
          cli={threads ? undefined : `runlane assistants delete ${id}`}
          python={`await client.assistants.delete("${id}"${threads ? ", delete_threads=True" : ""})`}
        />
      </p>
    </Dialog>
  );
}
