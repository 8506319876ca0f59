/** Send a message to the run's thread: a new run, which takes its turn as its strategy says. */
import { useState } from "preact/hooks";
import { path, post } from "../../lib/api";
import { python, shell } from "../../lib/code";
import { go } from "../../lib/route";
import { isActive } from "../../lib/runs";
import { AsCode, Button, Dialog } from "../../lib/ui";
import type { Run } from "./data";

const STRATEGIES = {
  enqueue: "after this run: it waits until the thread is free",
  interrupt: "instead of this run: it is stopped, and what it did stays",
  rollback: "instead of this run: it is stopped and undone",
  reject: "only if the thread is free",
} as const;
type Strategy = keyof typeof STRATEGIES;

export function MessageForm({ run, onClose }: { run: Run; onClose: () => void }) {
  const active = isActive(run);
  const [text, setText] = useState("");
  const [strategy, setStrategy] = useState<Strategy>(active ? "interrupt" : "enqueue");
  const route = path("/threads/{}/runs", run.thread_id);
  const body = { assistant_id: run.assistant_id, input: { messages: [{ role: "user", content: text }] }, multitask_strategy: strategy };
  const send = async () => {
    const made = await post<Run>(route, { ...body, stream_mode: run.kwargs.stream_mode ?? ["values", "messages-tuple"] });
    go(["run", made.run_id]);
  };
  return (
    <Dialog title={active ? "Steer: send a message now" : "Send a message"} onClose={onClose}>
      <label>
        Message
        <textarea rows={4} value={text} dir="auto" autoFocus onInput={(event) => setText(event.currentTarget.value)} />
      </label>
      {active && (
        <label>
          When it starts
          <select value={strategy} onChange={(event) => setStrategy(event.currentTarget.value as Strategy)}>
            {Object.entries(STRATEGIES).map(([name, does]) => (
              <option key={name} value={name}>
                {name}: {does}
              </option>
            ))}
          </select>
        </label>
      )}
      <div class="actions">
        <Button kind="primary" disabled={!text.trim()} onClick={send}>
          Send
        </Button>
        <Button onClick={onClose}>Leave it</Button>
        <AsCode
          http={`POST ${route} ${JSON.stringify(body)}`}
          cli={`runlane runs start ${run.assistant_id} --thread ${run.thread_id} --input ${shell(JSON.stringify(body.input))}`}
          python={`await client.runs.create("${run.thread_id}", "${run.assistant_id}", input=${python(body.input)}, multitask_strategy="${strategy}")`}
        />
      </div>
    </Dialog>
  );
}
