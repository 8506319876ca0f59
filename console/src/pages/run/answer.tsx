/** The questions of a paused run, each with a form for its answer; answered together, as the graph goes on with all. */
import { useState } from "preact/hooks";
import { get, path, post } from "../../lib/api";
import type { Question } from "../../lib/chat";
import { plural } from "../../lib/format";
import { Json } from "../../lib/json";
import { useLive } from "../../lib/live";
import { go } from "../../lib/route";
import { may } from "../../lib/session";
import { AsCode, Button } from "../../lib/ui";
import type { Run } from "./data";

interface Thread {
  status: string;
  interrupts: Record<string, Question[]>;
}

const ASK_MS = 4_000;

export function Answer({ run }: { run: Run }) {
  const live = useLive((stop) => get<Thread>(path("/threads/{}", run.thread_id), {}, stop), [run.run_id], ASK_MS);
  const questions = Object.values(live.data?.interrupts ?? {}).flat();
  if (!live.data) return null;
  if (!questions.length) return <p class="banner">The question of this run was answered: the thread waits for nobody now.</p>;
  return <Form run={run} questions={questions} />;
}

function Form({ run, questions }: { run: Run; questions: Question[] }) {
  const [answers, setAnswers] = useState<Record<string, string>>({});
  const route = path("/threads/{}/runs", run.thread_id);
  const resume = Object.fromEntries(questions.map(({ id }) => [id, valueOf(answers[id] ?? "")]));
  const body = { assistant_id: run.assistant_id, command: { resume }, stream_mode: run.kwargs.stream_mode ?? ["values"] };
  const send = async () => {
    const made = await post<Run>(route, body);
    go(["run", made.run_id]);
  };
  return (
    <section class="card asks" aria-label="Questions">
      <h2>◆ {questions.length === 1 ? "The graph asks" : `The graph asks ${plural(questions.length, "question")}`}</h2>
      {questions.map((question) => (
        <div key={question.id} class="ask">
          <Json value={question.value} open={3} />
          {may("admin") && (
            <label>
              Answer, as JSON or as text
              <textarea
                rows={2}
                dir="auto"
                value={answers[question.id] ?? ""}
                onInput={(event) => setAnswers({ ...answers, [question.id]: event.currentTarget.value })}
              />
            </label>
          )}
        </div>
      ))}
      {may("admin") && (
        <div class="actions">
          <Button kind="primary" disabled={questions.some(({ id }) => !answers[id])} onClick={send}>
            Answer and go on
          </Button>
          <AsCode
            http={`POST ${route} ${JSON.stringify(body)}`}
            cli={`runlane runs start ${run.assistant_id} --thread ${run.thread_id} --resume '${JSON.stringify(resume)}'`}
            python={`await client.runs.create("${run.thread_id}", "${run.assistant_id}", command={"resume": ${JSON.stringify(resume)}})`}
          />
        </div>
      )}
    </section>
  );
}

/** Return what somebody typed: JSON if it is some, else the text. */
function valueOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
