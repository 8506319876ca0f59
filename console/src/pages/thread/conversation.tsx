/** What was said on the thread beside the state that says it. */
import { get, path } from "../../lib/api";
import { Chat } from "../../lib/chat-view";
import type { Question } from "../../lib/chat";
import { nodesOf } from "../../lib/format";
import { Json } from "../../lib/json";
import { useKept, useLive } from "../../lib/live";
import { seesPayload } from "../../lib/session";
import { Empty, Failed, Hidden, Skeleton } from "../../lib/ui";
import { useSaid } from "./said";

export interface State {
  values: unknown;
  next: string[];
  created_at: string | null;
  checkpoint_id: string | null;
  interrupts: Question[];
}

interface ConversationProps {
  threadId: string;
  /** Another version: the state is read again. */
  version: string;
  /** An earlier state instead of the newest. */
  checkpoint?: string;
  /** The run that adds to it now. */
  running?: string;
}

export function Conversation({ threadId, version, checkpoint, running }: ConversationProps) {
  const route = checkpoint ? path("/threads/{}/state/{}", threadId, checkpoint) : path("/threads/{}/state", threadId);
  const live = useKept(useLive((stop) => get<State>(route, {}, stop), [route, version], null));
  const state = live.data;
  if (live.error) return <Failed error={live.error} retry={live.reload} />;
  if (!state) return <Skeleton rows={8} />;
  if (!seesPayload.value) {
    return (
      <Empty>
        Messages and state are payload: <Hidden />
      </Empty>
    );
  }
  return (
    <div class="beside">
      <section aria-label="Conversation">
        <Said state={state} running={running} />
      </section>
      <section aria-label="State">
        <h2>State</h2>
        {state.next.length > 0 && <p class="quiet">Goes on at: {nodesOf(state.next)}</p>}
        <Json value={state.values ?? {}} open={1} />
      </section>
    </div>
  );
}

function Said({ state, running }: { state: State; running: string | undefined }) {
  const said = useSaid(state, running);
  if (!said.messages.length && !said.questions.length) return <Empty>No messages. The state beside has what the graph keeps.</Empty>;
  return <Chat conversation={said} active={running !== undefined} />;
}
