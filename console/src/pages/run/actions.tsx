/** What one can do with the run: cancel, retry, answer, and send a message. Each says what it does, and shows its call. */
import { useState } from "preact/hooks";
import { path, post } from "../../lib/api";
import type { Conversation } from "../../lib/chat";
import { python } from "../../lib/code";
import { plural } from "../../lib/format";
import { useKeys } from "../../lib/keys";
import { go, link } from "../../lib/route";
import { isActive } from "../../lib/runs";
import { permits } from "../../lib/session";
import { AsCode, Button, Dialog } from "../../lib/ui";
import type { Run } from "./data";
import { MessageForm } from "./message-form";

interface ActionsProps {
  run: Run;
  said: Conversation;
  onDone: () => void;
}

type Asked = "interrupt" | "rollback" | "retry" | "message";

export function Actions({ run, said, onDone }: ActionsProps) {
  const [asked, ask] = useState<Asked>();
  const active = isActive(run);
  const cancels = active && !run.cancel && permits("threads.cancel");
  const starts = permits("threads.create_run") && run.assistant_id !== null;
  useKeys(cancels ? [{ press: "X", does: "Cancel this run", run: () => ask("interrupt") }] : [], [cancels]);
  const close = () => ask(undefined);
  const done = () => (close(), onDone());
  return (
    <>
      {cancels && (
        <Button kind="danger" onClick={() => ask("interrupt")}>
          Cancel
        </Button>
      )}
      {cancels && <Button onClick={() => ask("rollback")}>Roll back</Button>}
      {starts && <Button onClick={() => ask("message")}>{active ? "Steer" : "Message"}</Button>}
      {!active && permits("threads.retry") && <Button onClick={() => ask("retry")}>Retry</Button>}
      {starts && (
        <a class="button" href={link(["run", run.run_id], { tab: "checkpoints" })}>
          Fork
        </a>
      )}
      <AsCode {...code(run)} />
      {(asked === "interrupt" || asked === "rollback") && <Cancel run={run} said={said} action={asked} onClose={close} onDone={done} />}
      {asked === "retry" && <Retry run={run} onClose={close} />}
      {asked === "message" && <MessageForm run={run} onClose={close} />}
    </>
  );
}

function code(run: Run) {
  const { thread_id: thread, run_id: id } = run;
  if (!isActive(run)) {
    return {
      http: `POST /threads/${thread}/runs/${id}/retry`,
      cli: `runlane runs retry ${id}`,
      python: `await client.http.post("/threads/${thread}/runs/${id}/retry", json={})`,
    };
  }
  return {
    http: `POST /threads/${thread}/runs/${id}/cancel?action=interrupt`,
    cli: `runlane runs cancel ${id}`,
    python: `await client.runs.cancel("${thread}", "${id}")`,
  };
}

interface CancelProps extends ActionsProps {
  action: "interrupt" | "rollback";
  onClose: () => void;
}

function Cancel({ run, said, action, onClose, onDone }: CancelProps) {
  const route = path("/threads/{}/runs/{}/cancel", run.thread_id, run.run_id);
  const rolls = action === "rollback";
  const cancel = async () => {
    await post(`${route}?action=${action}`);
    onDone();
  };
  return (
    <Dialog title={rolls ? "Cancel the run and roll it back?" : "Cancel the run?"} onClose={onClose}>
      <p>{consequence(run, said, rolls)}</p>
      <div class="actions">
        <Button kind="danger" onClick={cancel} autoFocus>
          {rolls ? "Cancel and roll back" : "Cancel the run"}
        </Button>
        <Button onClick={onClose}>Leave it</Button>
        <AsCode
          http={`POST ${route}?action=${action}`}
          cli={`runlane runs cancel ${run.run_id}${rolls ? " --action rollback" : ""}`}
          python={`await client.runs.cancel("${run.thread_id}", "${run.run_id}"${rolls ? ', action="rollback"' : ""})`}
        />
      </div>
    </Dialog>
  );
}

function consequence(run: Run, said: Conversation, rolls: boolean): string {
  if (run.status === "pending") return "It has not started: nothing is lost but the request.";
  if (!rolls) return "Its code is stopped at once. What its thread has by its newest checkpoint stays, and a retry goes on from there.";
  const calls = said.messages.slice(said.earlier ?? 0).flatMap((message) => message.calls);
  const names = [...new Set(calls.map((call) => call.name))];
  const effects = calls.length
    ? `It made ${plural(calls.length, "tool call")} (${names.slice(0, 5).join(", ")}${names.length > 5 ? ", …" : ""}): their effects cannot be undone.`
    : "It made no tool call that this page knows of.";
  return `Its code is stopped, and its thread is set back to the checkpoint from before the run. What it said and did to the state is lost. ${effects}`;
}

function Retry({ run, onClose }: { run: Run; onClose: () => void }) {
  const [start, setStart] = useState(false);
  const route = path("/threads/{}/runs/{}/retry", run.thread_id, run.run_id);
  const retry = async () => {
    const made = await post<Run>(route, { from_start: start });
    go(["run", made.run_id]);
  };
  return (
    <Dialog title="Retry the run?" onClose={onClose}>
      <p>A new run takes its place on the same thread. Secrets of the configuration are not kept, so that they are not sent again.</p>
      <fieldset class="choices">
        <label>
          <input type="radio" name="from" checked={!start} onChange={() => setStart(false)} /> Go on from the newest checkpoint of the thread
        </label>
        <label>
          <input type="radio" name="from" checked={start} onChange={() => setStart(true)} /> Send the same input again
        </label>
      </fieldset>
      <div class="actions">
        <Button kind="primary" onClick={retry}>
          Retry
        </Button>
        <Button onClick={onClose}>Leave it</Button>
        <AsCode
          http={`POST ${route} {"from_start": ${start}}`}
          cli={`runlane runs retry ${run.run_id}${start ? " --from-start" : ""}`}
          python={`await client.http.post("${route}", json={"from_start": ${python(start)}})`}
        />
      </div>
    </Dialog>
  );
}
