/** The graph of an assistant, whose subgraphs open. */
import { useState } from "preact/hooks";
import { get, path } from "./api";
import type { Drawable, Work } from "./graph";
import { GraphView } from "./graph-view";
import { useKept, useLive } from "./live";
import { Loaded } from "./ui";

/** *version*: another one has another graph. */
export function AssistantGraph({ assistantId, version, work }: { assistantId: string; version?: number; work?: Work }) {
  const [xray, setXray] = useState(false);
  const route = path("/assistants/{}/graph", assistantId);
  const graph = useKept(useLive((stop) => get<Drawable>(route, { xray }, stop), [route, version, xray], null));
  return (
    <>
      <label class="check">
        <input type="checkbox" checked={xray} onChange={(event) => setXray(event.currentTarget.checked)} />
        Open subgraphs
      </label>
      <Loaded live={graph}>{(known) => <GraphView graph={known} work={work} />}</Loaded>
    </>
  );
}
