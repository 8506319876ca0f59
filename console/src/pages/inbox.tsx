/** What agents ask people, of all threads: the oldest question first. */
import { useState } from "preact/hooks";
import { Answer } from "../lib/answer";
import { age, plural } from "../lib/format";
import { type Live, useKept, useLive } from "../lib/live";
import { Answered, type Open, type Question, answer, answerCode, answered, openQuestions } from "../lib/questions";
import { link } from "../lib/route";
import { isRecorded, withoutPayload } from "../lib/runs";
import { permits, seesPayload } from "../lib/session";
import { Table } from "../lib/table";
import { Age, AsCode, Button, Chip, Empty, Head, Loaded, Status } from "../lib/ui";

const PAGE = 50;
const SHOWN_ANSWERS = 5;

/** The open questions, live. Payload is read once for each of them where such reads go to the audit. */
function useOpen(threads: number): Live<Open> {
  const live = useLive((stop) => openQuestions({ limit: threads }, { headers: withoutPayload(), signal: stop }), [threads], 3_000);
  const ids = live.data?.questions.map((one) => one.interrupt_id);
  const reads = isRecorded() && seesPayload.value && Boolean(ids?.length);
  const whole = useKept(useLive(async (stop) => (reads ? openQuestions({ limit: threads }, { signal: stop }) : undefined), [reads, ids], null));
  if (!live.data || !reads) return live;
  if (!whole.data) return { ...live, data: undefined, error: live.error ?? whole.error };
  const known = new Map(whole.data.questions.map((one) => [one.interrupt_id, one]));
  return { ...live, data: { ...live.data, questions: live.data.questions.flatMap((one) => known.get(one.interrupt_id) ?? []) } };
}

export default function Inbox() {
  const [threads, setThreads] = useState(PAGE);
  const live = useOpen(threads);
  const questions = live.data?.questions ?? [];
  const oldest = questions[0];
  const count = live.data?.more ? `${questions.length}+` : String(questions.length);
  return (
    <>
      <Head
        title="Inbox"
        live={live}
        sentence={
          live.data &&
          (oldest
            ? `${count} open ${questions.length === 1 ? "question waits" : "questions wait"} for a person; the oldest was asked ${age(oldest.since)}.`
            : "No agent waits for a person.")
        }
      />
      <Loaded live={live}>
        {({ more }) => (
          <>
            {questions.map((one) => (
              <Card key={`${one.thread_id} ${one.interrupt_id}`} question={one} equal={equalTo(one, questions)} onDone={live.reload} />
            ))}
            {!questions.length && (
              <Empty>
                When a graph calls <code>interrupt()</code> or a tool call needs approval, the question stands here.
              </Empty>
            )}
            {more && <Button onClick={() => setThreads(Math.min(1_000, threads * 2))}>Show more</Button>}
          </>
        )}
      </Loaded>
      <LastAnswers />
    </>
  );
}

function LastAnswers() {
  const live = useLive((stop) => answered({ limit: SHOWN_ANSWERS }, stop), [], 5_000);
  if (!live.data?.length) return null;
  return (
    <section aria-label="Answered last">
      <h2>Answered last</h2>
      <Table
        label="Answered last"
        rows={live.data}
        id={(one) => one.run_id}
        open={(one) => link(["run", one.run_id])}
        columns={[
          { name: "Run", cell: (one) => <Chip to={["run", one.run_id]} id={one.run_id} /> },
          { name: "Thread", cell: (one) => <Chip to={["thread", one.thread_id]} id={one.thread_id} /> },
          { name: "Graph", cell: (one) => one.graph_id ?? "" },
          { name: "By", cell: (one) => <bdi>{one.answered_by || "–"}</bdi> },
          { name: "When", cell: (one) => <Age at={one.answered_at} /> },
          { name: "Its run", cell: (one) => <Status status={one.status} /> },
        ]}
      />
    </section>
  );
}

function equalTo(question: Question, all: Question[]): Question[] {
  const wanted = JSON.stringify([question.graph_id, question.value]);
  return all.filter((one) => one !== question && JSON.stringify([one.graph_id, one.value]) === wanted);
}

interface CardProps {
  question: Question;
  equal: Question[];
  onDone: () => void;
}

function Card({ question, equal, onDone }: CardProps) {
  const [alike, setAlike] = useState(false);
  const [told, setTold] = useState<string>();
  const send = async (value: unknown) => {
    const answers = await Promise.allSettled([question, ...(alike ? equal : [])].map((one) => answer(one, value)));
    const refused = answers.flatMap((one) => (one.status === "rejected" ? [one.reason as unknown] : []));
    const elsewhere = refused.filter((one) => one instanceof Answered);
    const failed = refused.find((one) => !(one instanceof Answered));
    if (failed) throw failed;
    if (elsewhere.length) setTold(`Not taken: ${[...new Set(elsewhere.map((one) => one.message))].join(" ")}`);
    else onDone();
  };
  return (
    <article class="card question">
      <header class="head-line">
        <p>
          <span class="status status-paused">
            <span class="shape" aria-hidden="true">
              ◆
            </span>
            {question.graph_id ?? "graph"}
          </span>{" "}
          asks on thread <Chip to={["thread", question.thread_id]} id={question.thread_id} />
          {question.owner && (
            <>
              {" "}
              of <bdi>{question.owner}</bdi>
            </>
          )}
          , <Age at={question.since} />
        </p>
        <AsCode {...answerCode(question)} />
      </header>
      {told ? (
        <p class="banner" role="status">
          {told}
          <button type="button" onClick={onDone}>
            Read again
          </button>
        </p>
      ) : (
        <>
          <Answer question={question} onAnswer={send} />
          {equal.length > 0 && permits("threads.answer") && (
            <label class="check">
              <input type="checkbox" checked={alike} onChange={(event) => setAlike(event.currentTarget.checked)} />
              Answer {plural(equal.length, "equal question", "equal questions")} alike
            </label>
          )}
        </>
      )}
    </article>
  );
}

