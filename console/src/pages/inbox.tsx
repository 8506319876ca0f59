/** What agents ask people, of all threads: the oldest question first. */
import { useState } from "preact/hooks";
import { page } from "../lib/api";
import { Answer } from "../lib/answer";
import { age, plural } from "../lib/format";
import { useLive } from "../lib/live";
import { Answered, type Question, answer } from "../lib/questions";
import { me } from "../lib/session";
import { Age, AsCode, Chip, Empty, Head, Loaded } from "../lib/ui";

interface ThreadRow {
  thread_id: string;
  metadata: { graph_id?: string; assistant_id?: string; owner?: string };
  updated_at: string;
  state_updated_at?: string;
  interrupts: Record<string, { id: string; value: unknown; response_schema?: Question["response_schema"] }[]>;
}

const PAGE = 50;

async function open(stop: AbortSignal): Promise<{ questions: Question[]; more: boolean }> {
  const found = await page<ThreadRow>("POST", "/threads/search", {
    body: {
      status: "interrupted",
      limit: PAGE,
      sort_by: "updated_at",
      sort_order: "asc",
      select: ["thread_id", "metadata", "interrupts", "updated_at"],
    },
    signal: stop,
  });
  return { questions: found.items.flatMap(questionsOf), more: found.next !== null };
}

function questionsOf(thread: ThreadRow): Question[] {
  return Object.values(thread.interrupts ?? {})
    .flat()
    .map((one) => ({
      thread_id: thread.thread_id,
      interrupt_id: one.id,
      graph_id: thread.metadata.graph_id ?? null,
      assistant_id: thread.metadata.assistant_id ?? null,
      owner: null,
      node: null,
      since: thread.updated_at,
      value: one.value,
      response_schema: one.response_schema,
    }));
}

export default function Inbox() {
  const live = useLive(open, [], 3_000);
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
        {() =>
          questions.length ? (
            questions.map((one) => (
              <Card key={`${one.thread_id} ${one.interrupt_id}`} question={one} equal={equalTo(one, questions)} onDone={live.reload} />
            ))
          ) : (
            <Empty>When a graph calls `interrupt()` or a tool call needs approval, the question stands here.</Empty>
          )
        }
      </Loaded>
    </>
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
  const operates = Boolean(me.value?.operator && me.value.identity);
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
          asks on thread <Chip to={["thread", question.thread_id]} id={question.thread_id} />, <Age at={question.since} />
        </p>
        <AsCode
          http={`POST /threads/${question.thread_id}/commands {"id": 1, "method": "input.respond", "params": {"interrupt_id": "${question.interrupt_id}", "namespace": [], "response": …}}`}
          python={`client.runs.create("${question.thread_id}", "${question.assistant_id ?? question.graph_id}", command={"resume": {"${question.interrupt_id}": …}})`}
        />
      </header>
      {told ? (
        <p class="banner" role="status">
          {told}
          <button type="button" onClick={onDone}>
            Read again
          </button>
        </p>
      ) : operates ? (
        <p class="quiet">Its owner answers it; an operator's key starts no runs.</p>
      ) : (
        <>
          <Answer question={question} onAnswer={send} />
          {equal.length > 0 && (
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

