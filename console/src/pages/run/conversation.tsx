/** What was said: the messages of the run as they come. */
import { Chat } from "../../lib/chat-view";
import { seesPayload } from "../../lib/session";
import { Empty, Hidden } from "../../lib/ui";
import type { Run } from "./data";
import type { RunLog } from "./log";
import { useSaid } from "./use-log";

export function ConversationTab({ log, run, active }: { log: RunLog; run: Run; active: boolean }) {
  const conversation = useSaid(log).value;
  if (!seesPayload.value) {
    return (
      <Empty>
        Messages are payload: <Hidden />
      </Empty>
    );
  }
  if (!conversation.messages.length && !conversation.questions.length) {
    return <Empty>{active ? "No message yet." : `Graph of run ${run.run_id} said nothing in messages.`}</Empty>;
  }
  return <Chat conversation={conversation} active={active} />;
}
