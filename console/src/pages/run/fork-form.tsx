/** Start a run from an earlier checkpoint: the thread's history forks there. */
import { useState } from "preact/hooks";
import { path, post } from "../../lib/api";
import { python } from "../../lib/code";
import { shortId } from "../../lib/format";
import { go } from "../../lib/route";
import { JsonEditor } from "../../lib/schema-form";
import { AsCode, Button, Dialog } from "../../lib/ui";
import type { Run } from "./data";

interface ForkProps {
  run: Run;
  checkpointId: string;
  onClose: () => void;
}

export function ForkForm({ run, checkpointId, onClose }: ForkProps) {
  const [input, setInput] = useState<unknown>(null);
  const [readable, setReadable] = useState(true);
  const route = path("/threads/{}/runs", run.thread_id);
  const body = { assistant_id: run.assistant_id, input: input ?? null, checkpoint_id: checkpointId };
  const fork = async () => {
    const made = await post<Run>(route, { ...body, stream_mode: run.kwargs.stream_mode ?? ["values"] });
    go(["run", made.run_id]);
  };
  return (
    <Dialog title={`Fork at checkpoint ${shortId(checkpointId)}`} onClose={onClose}>
      <p>
        A new run begins at this checkpoint. What came after it stays in the history, and the thread goes on from the fork. Tools that ran after it may run
        again.
      </p>
      <JsonEditor label="Input" description="null goes on with what was to run next." value={input} onChange={setInput} onReadable={setReadable} />
      <div class="actions">
        <Button kind="primary" disabled={!readable} onClick={fork}>
          Start the run
        </Button>
        <Button onClick={onClose}>Leave it</Button>
        <AsCode
          http={`POST ${route} ${JSON.stringify(body)}`}
          python={`await client.runs.create("${run.thread_id}", "${run.assistant_id}", input=${python(input)}, checkpoint_id="${checkpointId}")`}
        />
      </div>
    </Dialog>
  );
}
