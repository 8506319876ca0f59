/** What was said: the messages of the run as they come; of a graph without messages, what went in and what came out. */
import { Chat } from "../../lib/chat-view";
import { Json } from "../../lib/json";
import { isActive } from "../../lib/runs";
import { seesPayload } from "../../lib/session";
import { Empty, Hidden } from "../../lib/ui";
import type { Run } from "./data";
import type { RunLog } from "./log";
import { streamedState } from "./state";
import { useSaid } from "./use-log";

export function ConversationTab({ log, run }: { log: RunLog; run: Run }) {
  const said = useSaid(log).value;
  if (!seesPayload.value) {
    return (
      <Empty>
        Messages are payload: <Hidden />
      </Empty>
    );
  }
  return (
    <>
      {!said.messages.length && <InAndOut log={log} run={run} />}
      <Chat conversation={said} active={isActive(run)} />
    </>
  );
}

function InAndOut({ log, run }: { log: RunLog; run: Run }) {
  const state = streamedState(log);
  const { input, command } = run.kwargs;
  return (
    <div class="in-and-out">
      <section class="card">
        <h2>{command ? "Command" : "Input"}</h2>
        <Json value={command ?? input} open={3} />
      </section>
      {state && (
        <section class="card">
          <h2>State by event {state.number}</h2>
          <Json value={state.state} open={2} />
        </section>
      )}
    </div>
  );
}
