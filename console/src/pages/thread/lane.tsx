/** The lane of a thread: ended runs small, then the one that runs, then the queue in its order. */
import { age } from "../../lib/format";
import { useNow } from "../../lib/live";
import { link } from "../../lib/route";
import { type RunSummary, causeOf, isActive, shownStatus, timesOf } from "../../lib/runs";
import { Chip, SHAPES, Status } from "../../lib/ui";

const ENDED_SHOWN = 40;

/** *runs*: the newest first. */
export function Lane({ runs }: { runs: readonly RunSummary[] }) {
  const now = useNow(1_000);
  const ended = runs.filter((run) => !isActive(run)).slice(0, ENDED_SHOWN).reverse();
  const active = runs.filter(isActive).reverse();
  const queue = active.filter((run) => run.status === "pending");
  return (
    <ol class="lane" aria-label="Lane">
      {ended.map((run) => (
        <li key={run.run_id}>
          <EndedRun run={run} now={now} />
        </li>
      ))}
      {active.map((run) => (
        <li key={run.run_id} class={`lane-card lane-${run.status}`}>
          <div>
            <Status status={run.status} /> <Chip to={["run", run.run_id]} id={run.run_id} />
          </div>
          <div class="quiet">
            {run.status === "running"
              ? `for ${timesOf(run, now).run}${run.attempt > 1 ? `, attempt ${run.attempt}` : ""}`
              : `place ${queue.indexOf(run) + 1}, waits ${timesOf(run, now).queue}`}
          </div>
        </li>
      ))}
    </ol>
  );
}

function EndedRun({ run, now }: { run: RunSummary; now: number }) {
  const words = [shownStatus(run), causeOf(run), age(run.ended_at ?? run.created_at, now)].filter(Boolean).join(", ");
  return (
    <a class={`lane-ended status-${shownStatus(run)}`} href={link(["run", run.run_id])} title={words} aria-label={`Run ${words}`}>
      {SHAPES[shownStatus(run)]}
    </a>
  );
}
