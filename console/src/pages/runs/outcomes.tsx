/** What became of each run of an action. */
import { number } from "../../lib/format";
import { Chip } from "../../lib/ui";

export interface RunResult {
  run_id: string;
  thread_id: string | null;
  outcome: "done" | "refused" | "not_found";
  sentence: string | null;
  retry_run_id: string | null;
}

const SHOWN = 100;

/** Those that were not acted on come first. */
export function Outcomes({ results }: { results: readonly RunResult[] }) {
  const ordered = [...results].sort((a, b) => Number(a.outcome === "done") - Number(b.outcome === "done"));
  return (
    <ul class="outcomes">
      {ordered.slice(0, SHOWN).map((result) => (
        <li key={result.run_id}>
          <Chip to={["run", result.run_id]} id={result.run_id} />{" "}
          <span class={result.outcome === "done" ? "quiet" : "refusal"}>
            {result.outcome === "done" ? "done" : result.outcome === "not_found" ? "not found" : result.sentence}
          </span>
          {result.retry_run_id && (
            <>
              {" "}
              → <Chip to={["run", result.retry_run_id]} id={result.retry_run_id} />
            </>
          )}
        </li>
      ))}
      {ordered.length > SHOWN && <li class="quiet">and {number(ordered.length - SHOWN)} more</li>}
    </ul>
  );
}
