/** Try an assistant: its input as a form, its run as a conversation, its graph with the nodes at work. */
import { useEffect } from "preact/hooks";
import { post } from "../lib/api";
import { useLive } from "../lib/live";
import { go, link, place, setQuery } from "../lib/route";
import { me } from "../lib/session";
import { Empty, Head, Loaded } from "../lib/ui";
import { Bench } from "./playground/bench";

export interface Assistant {
  assistant_id: string;
  graph_id: string;
  name: string;
  description: string | null;
  context: Record<string, unknown>;
  metadata: { created_by?: string };
}

const SHOWN = 200;

export default function Playground() {
  const chosen = place.value.path[1];
  const live = useLive((stop) => post<Assistant[]>("/assistants/search", { limit: SHOWN, sort_by: "name", sort_order: "asc" }, stop), [], null);
  const first = live.data?.[0];
  useEffect(() => {
    if (!chosen && first) location.replace(link(["playground", first.assistant_id]));
  }, [chosen, first]);
  const assistant = live.data?.find((one) => one.assistant_id === chosen || one.name === chosen);
  return (
    <>
      <Head
        title="Playground"
        sentence={assistant && `Runs of ${assistant.name} that you start here are real: they are on a thread, and their tools do what they do.`}
      >
        {live.data && live.data.length > 0 && (
          <label class="inline">
            Assistant
            <select value={assistant?.assistant_id ?? ""} onChange={(event) => go(["playground", event.currentTarget.value])}>
              {!assistant && <option value="">choose</option>}
              {live.data.map((one) => (
                <option key={one.assistant_id} value={one.assistant_id}>
                  {one.name === one.graph_id ? one.name : `${one.name} (${one.graph_id})`}
                </option>
              ))}
            </select>
          </label>
        )}
      </Head>
      <Loaded live={live}>
        {(all) =>
          me.value?.operator && me.value.identity ? (
            <Empty>An operator's key starts no runs. Log in with the key of an owner to try an assistant.</Empty>
          ) : assistant ? (
            <Bench
              key={assistant.assistant_id}
              assistant={assistant}
              threadId={place.value.query["thread"]}
              onThread={(thread) => setQuery({ thread }, { replace: true })}
            />
          ) : all.length === 0 ? (
            <Empty>There is no assistant that you may use.</Empty>
          ) : chosen ? (
            <Empty>There is no assistant {chosen}, or it is not yours.</Empty>
          ) : null
        }
      </Loaded>
    </>
  );
}
