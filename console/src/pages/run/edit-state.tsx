/** Write to the state at a checkpoint: that makes a new checkpoint, which the thread goes on from. */
import { useState } from "preact/hooks";
import { path, post } from "../../lib/api";
import { python } from "../../lib/code";
import { shortId } from "../../lib/format";
import { AsCode, Button, Dialog } from "../../lib/ui";
import type { Run } from "./data";
import { JsonField, parsedJson } from "./json-field";

interface EditProps {
  run: Run;
  checkpointId: string;
  onClose: () => void;
  onDone: () => void;
}

export function EditState({ run, checkpointId, onClose, onDone }: EditProps) {
  const [text, setText] = useState("{}");
  const [node, setNode] = useState("");
  const values = parsedJson(text);
  const route = path("/threads/{}/state", run.thread_id);
  const body = { values: values.value, checkpoint_id: checkpointId, ...(node && { as_node: node }) };
  const write = async () => {
    await post(route, body);
    onDone();
  };
  return (
    <Dialog title={`Edit the state at checkpoint ${shortId(checkpointId)}`} onClose={onClose}>
      <p>What you write goes through the state's reducers, as if a node had returned it. It makes a new checkpoint, and nothing is lost.</p>
      <JsonField label="Update" text={text} error={values.error} onText={setText} />
      <label>
        As if this node had written it; empty: the last one
        <input type="text" value={node} onInput={(event) => setNode(event.currentTarget.value)} />
      </label>
      <div class="actions">
        <Button kind="primary" disabled={Boolean(values.error)} onClick={write}>
          Write
        </Button>
        <Button onClick={onClose}>Leave it</Button>
        <AsCode
          http={`POST ${route} ${JSON.stringify(body)}`}
          python={`await client.threads.update_state("${run.thread_id}", ${python(values.value)}, checkpoint_id="${checkpointId}")`}
        />
      </div>
    </Dialog>
  );
}
