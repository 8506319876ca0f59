/** What one thread asks, where somebody looks at it. */
import { Answer } from "./answer";
import { plural } from "./format";
import { useLive } from "./live";
import { type Question, answer, answerCode, openQuestions } from "./questions";
import { AsCode } from "./ui";

interface OpenQuestionsProps {
  threadId: string;
  /** Another one, once the thread may ask something else. */
  version: string;
  /** Gets the run that goes on. */
  onAnswered: (runId: string) => void;
  /** What is shown if nothing is asked. */
  none?: string;
}

export function OpenQuestions({ threadId, version, onAnswered, none }: OpenQuestionsProps) {
  const live = useLive((stop) => openQuestions({ thread_id: threadId, limit: 1 }, { signal: stop }), [threadId, version], null);
  if (!live.data) return null;
  const { questions } = live.data;
  if (!questions.length) return none ? <p class="banner">{none}</p> : null;
  const send = async (question: Question, value: unknown) => {
    try {
      onAnswered(await answer(question, value));
    } catch (error) {
      live.reload(); // it may have been answered meanwhile
      throw error;
    }
  };
  return (
    <section class="card run-asks" aria-label="Questions">
      <h2>◆ {questions.length === 1 ? "The graph asks" : `The graph asks ${plural(questions.length, "question")}`}</h2>
      {questions.map((one) => (
        <div class="ask" key={one.interrupt_id}>
          <Answer question={one} onAnswer={(value) => send(one, value)} />
          <AsCode {...answerCode(one)} />
        </div>
      ))}
    </section>
  );
}
