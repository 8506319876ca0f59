/** The sentence with which a thread's page begins. Pure. */
import { age, plural, shortId } from "../../lib/format";
import { type RunSummary, causeOf } from "../../lib/runs";
import { type ThreadSummary, shortened } from "../../lib/threads";

/** *runs*: the newest first. */
export function threadSentence(thread: ThreadSummary, runs: readonly RunSummary[], now: number): string {
  const running = runs.find((run) => run.status === "running");
  const waiting = runs.filter((run) => run.status === "pending").length;
  const last = runs.find((run) => run.ended_at !== null);
  if (running) return `Run ${shortId(running.run_id)} is being executed${waiting ? `; ${plural(waiting, "run waits", "runs wait")} behind it` : ""}.`;
  if (waiting) return `${plural(waiting, "run waits", "runs wait")} to be executed.`;
  const questions = Object.values(thread.interrupts).flat().length;
  const since = age(thread.updated_at, now);
  if (thread.status === "interrupted" && questions) return `The agent waits for ${questions === 1 ? "an answer" : `${questions} answers`}, asked for ${since}.`;
  if (thread.status === "error") return `The last run failed ${since}${last?.error ? `: ${shortened(causeOf(last))}` : ""}. A new run goes on from what was kept.`;
  if (!last) return "Nothing has run on this thread yet.";
  return `Nothing runs. The last run ended with ${last.status} ${age(last.ended_at!, now)}.`;
}
