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
  // Their cards go with the next reading; that an answer was not taken is told until somebody has read it.
  const [told, setTold] = useState<[string, string][]>([]);
  const live = useOpen(threads);
  const questions = live.data?.questions ?? [];
  const equal = equality(questions);
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
      {told.map(([threadId, text]) => (
        <p key={`${threadId} ${text}`} class="banner" role="status">
          <span>
            Your answer on thread <Chip to={["thread", threadId]} id={threadId} /> was not taken. {text}
          </span>
          <button type="button" onClick={() => setTold(told.filter((one) => one[1] !== text))}>
            Close
          </button>
        </p>
      ))}
      <Loaded live={live}>
        {({ more }) => (
          <>
            {questions.map((one) => (
              <Card key={`${one.thread_id} ${one.interrupt_id}`} question={one} equal={equal(one)} onDone={live.reload} onTold={(notes) => setTold((was) => [...was, ...notes])} />
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

/** Return what gives the other questions that are asked alike. Values may be large, and are written out once each. */
function equality(all: Question[]): (question: Question) => Question[] {
  const asks = new Map(all.map((one) => [one, JSON.stringify([one.graph_id, one.value])]));
  const alike = new Map<string, Question[]>();
  for (const [one, text] of asks) {
    const before = alike.get(text);
    if (before) before.push(one);
    else alike.set(text, [one]);
  }
  return (question) => (alike.get(asks.get(question)!) ?? []).filter((one) => one !== question);
}

interface CardProps {
  question: Question;
  equal: Question[];
  onDone: () => void;
  /** Gets threads whose answers were not taken, as somebody was faster, with who it was. */
  onTold: (notes: [string, string][]) => void;
}

function Card({ question, equal, onDone, onTold }: CardProps) {
  const [alike, setAlike] = useState(false);
  const send = async (value: unknown) => {
    const asked = [question, ...(alike ? equal : [])];
    const answers = await Promise.allSettled(asked.map((one) => answer(one, value)));
    const refused = answers.map((one) => (one.status === "rejected" ? (one.reason as unknown) : undefined));
    onTold(asked.flatMap((one, at) => (refused[at] instanceof Answered ? [[one.thread_id, refused[at].message]] : [])));
    onDone();
    const failed = refused.find((one) => one !== undefined && !(one instanceof Answered));
    if (failed) throw failed;
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
      <Answer question={question} onAnswer={send} />
      {equal.length > 0 && permits("threads.answer") && (
        <label class="check">
          <input type="checkbox" checked={alike} onChange={(event) => setAlike(event.currentTarget.checked)} />
          Answer {plural(equal.length, "equal question", "equal questions")} alike
        </label>
      )}
    </article>
  );
}

