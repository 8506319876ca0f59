/** The questions of a paused run that are still open. */
import { Answer } from "../../lib/answer";
import { get, path } from "../../lib/api";
import { plural } from "../../lib/format";
import { useLive } from "../../lib/live";
import { type Question, answer } from "../../lib/questions";
import { go } from "../../lib/route";
import { permits, seesPayload } from "../../lib/session";
import { AsCode, Hidden } from "../../lib/ui";
import type { Run } from "./data";

interface Thread {
  interrupts: Record<string, { id: string; value: unknown; response_schema?: Question["response_schema"] }[]>;
}

export function Questions({ run }: { run: Run }) {
  const live = useLive((stop) => get<Thread>(path("/threads/{}", run.thread_id), {}, stop), [run.run_id], null);
  if (!live.data) return null;
  const open = Object.values(live.data.interrupts).flat();
  if (!open.length) return <p class="banner">Its question was answered: the thread waits for nobody now.</p>;
  return (
    <section class="card run-asks" aria-label="Questions">
      <h2>◆ {open.length === 1 ? "The graph asks" : `The graph asks ${plural(open.length, "question")}`}</h2>
      {seesPayload.value ? open.map((one) => <Ask key={one.id} run={run} one={one} reload={live.reload} />) : <Hidden />}
    </section>
  );
}

interface AskProps {
  run: Run;
  one: Thread["interrupts"][string][number];
  reload: () => void;
}

function Ask({ run, one, reload }: AskProps) {
  const question: Question = {
    thread_id: run.thread_id,
    run_id: run.run_id,
    interrupt_id: one.id,
    graph_id: null,
    assistant_id: run.assistant_id,
    owner: null,
    since: run.ended_at ?? run.created_at,
    value: one.value,
    response_schema: one.response_schema,
  };
  const send = async (value: unknown) => {
    try {
      await answer(question, value);
    } catch (error) {
      reload(); // it may have been answered meanwhile
      throw error;
    }
    const [newest] = await get<Run[]>(path("/threads/{}/runs", run.thread_id), { limit: 1 });
    if (newest) go(["run", newest.run_id]);
  };
  return (
    <div class="ask">
      {permits("threads.create_run") ? <Answer question={question} onAnswer={send} /> : <p>Answering needs a key with the scope admin, or the owner's.</p>}
      <AsCode
        http={`POST /threads/${run.thread_id}/runs {"assistant_id": "${run.assistant_id}", "command": {"resume": {"${one.id}": …}}}`}
        cli={`runlane runs start ${run.assistant_id} --thread ${run.thread_id} --resume '{"${one.id}": …}'`}
        python={`await client.runs.create("${run.thread_id}", "${run.assistant_id}", command={"resume": {"${one.id}": ...}})`}
      />
    </div>
  );
}
