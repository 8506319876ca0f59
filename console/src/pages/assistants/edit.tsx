/** The form that makes an assistant, or a new version of one. */
import { useState } from "preact/hooks";
import { get, path, post, send } from "../../lib/api";
import { useLive } from "../../lib/live";
import { go } from "../../lib/route";
import { type Schema, initial } from "../../lib/schema";
import { SchemaForm } from "../../lib/schema-form";
import { Button, Dialog, Loaded } from "../../lib/ui";
import { type Assistant, isSystem, readAssistants } from "./data";

interface EditProps {
  /** The one that is changed; without it a new one is made. */
  assistant?: Assistant;
  graphs: string[];
  onClose: () => void;
}

export function Edit({ assistant, graphs, onClose }: EditProps) {
  const [graph, setGraph] = useState(assistant?.graph_id ?? graphs[0] ?? "");
  const [name, setName] = useState(assistant?.name ?? "");
  const [description, setDescription] = useState(assistant?.description ?? "");
  const [context, setContext] = useState<unknown>(assistant?.context);
  const schema = useLive((stop) => contextSchema(graph, stop), [graph], null);
  const save = async () => {
    const body = { name: name.trim(), description: description || undefined, context: context ?? undefined };
    if (assistant) {
      await send("PATCH", path("/assistants/{}", assistant.assistant_id), { body });
      onClose();
    } else {
      const made = await post<Assistant>("/assistants", { ...body, graph_id: graph });
      onClose();
      go(["assistants", made.assistant_id]);
    }
  };
  return (
    <Dialog title={assistant ? `Edit ${assistant.name}` : "New assistant"} onClose={onClose}>
      {assistant ? (
        <p>This makes version {assistant.version + 1}. Runs that are under way keep the version they began with.</p>
      ) : (
        <label>
          Graph
          <select value={graph} onChange={(event) => (setGraph(event.currentTarget.value), setContext(undefined))}>
            {graphs.map((one) => (
              <option key={one}>{one}</option>
            ))}
          </select>
        </label>
      )}
      <label>
        Name
        <input type="text" maxLength={512} value={name} onInput={(event) => setName(event.currentTarget.value)} />
      </label>
      <label>
        Description
        <textarea value={description} onInput={(event) => setDescription(event.currentTarget.value)} />
      </label>
      <Loaded live={schema} rows={2}>
        {(found) =>
          found.schema ? (
            <fieldset>
              <legend>Context</legend>
              <SchemaForm schema={found.schema} value={context ?? initial(found.schema, found.schema)} onChange={setContext} />
            </fieldset>
          ) : (
            <p class="quiet">Graph {graph} takes no context.</p>
          )
        }
      </Loaded>
      <p class="actions">
        <Button kind="primary" disabled={!name.trim()} onClick={save}>
          {assistant ? "Save as a new version" : "Make it"}
        </Button>
        <Button onClick={onClose}>Cancel</Button>
      </p>
    </Dialog>
  );
}

/** The schema of the context of *graph*, if it has one with fields. */
async function contextSchema(graph: string, stop: AbortSignal): Promise<{ schema: Schema | null }> {
  const own = (await readAssistants({ graph }, 100, stop)).find(isSystem);
  if (!own) return { schema: null };
  const found = await get<{ context_schema: Schema | null }>(path("/assistants/{}/schemas", own.assistant_id), {}, stop);
  return { schema: Object.keys(found.context_schema?.properties ?? {}).length ? found.context_schema : null };
}
