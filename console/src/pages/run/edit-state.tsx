/** Write to the state at a checkpoint: that makes a new checkpoint, which the thread goes on from. */
import { useState } from "preact/hooks";
import { path, post } from "../../lib/api";
import { python } from "../../lib/code";
import { shortId } from "../../lib/format";
import { JsonEditor } from "../../lib/schema-form";
import { AsCode, Button, Dialog } from "../../lib/ui";
import type { Run } from "./data";

interface EditProps {
  run: Run;
  checkpointId: string;
  onClose: () => void;
  onDone: () => void;
}

export function EditState({ run, checkpointId, onClose, onDone }: EditProps) {
  const [values, setValues] = useState<unknown>({});
  const [readable, setReadable] = useState(true);
  const [node, setNode] = useState("");
  const route = path("/threads/{}/state", run.thread_id);
  const body = { values, checkpoint_id: checkpointId, ...(node && { as_node: node }) };
  const write = async () => {
    await post(route, body);
    onDone();
  };
  return (
    <Dialog title={`Edit the state at checkpoint ${shortId(checkpointId)}`} onClose={onClose}>
      <p>What you write goes through the state's reducers, as if a node had returned it. It makes a new checkpoint, and nothing is lost.</p>
      <JsonEditor label="Update" value={values} onChange={setValues} onReadable={setReadable} />
      <label>
        As if this node had written it; empty: the last one
        <input type="text" value={node} onInput={(event) => setNode(event.currentTarget.value)} />
      </label>
      <div class="actions">
        <Button kind="primary" disabled={!readable || values === undefined} onClick={write}>
          Write
        </Button>
        <Button onClick={onClose}>Leave it</Button>
        <AsCode
          http={`POST ${route} ${JSON.stringify(body)}`}
          python={`await client.threads.update_state("${run.thread_id}", ${python(values)}, checkpoint_id="${checkpointId}")`}
        />
      </div>
    </Dialog>
  );
}
