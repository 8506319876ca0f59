import { send } from "../../lib/api";
import { between, duration } from "../../lib/format";
import { useKept, useLive } from "../../lib/live";
import { withoutPayload } from "../../lib/runs";
import { link } from "../../lib/route";
import { Table } from "../../lib/table";
import { Age, Chip, Loaded, SHAPES, Status } from "../../lib/ui";
import type { Cron } from "./parts";

const EVERY_MS = 3_000;
/** Runs of each cron in the list of all. */
const IN_LIST = 5;

export interface CronRun {
  run_id: string;
  status: string;
  end_reason: string | null;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
}

const shown = (run: CronRun): string => (run.end_reason === "paused" ? "paused" : run.status);

/** How the newest runs of a cron ended: as dots, the newest at the right, and in a table. */
export function Outcomes({ cron }: { cron: Cron }) {
  const ids = cron.recent_run_ids;
  const runs = useLive((stop) => found(ids, stop), [cron.cron_id, cron.last_run_id], EVERY_MS);
  return (
    <section class="section" aria-labelledby="outcomes">
      <div class="section-head">
        <h2 id="outcomes">Last runs</h2>
      </div>
      <Loaded live={runs} rows={2}>
        {(rows) => (
          <>
            {rows.length > 0 && <Dots runs={rows} />}
            {rows.length > 0 && (
              <Table
                label="Last runs"
                rows={rows}
                id={(run) => run.run_id}
                open={(run) => link(["run", run.run_id])}
                columns={[
                  { name: "Status", cell: (run) => <Status status={shown(run)} /> },
                  { name: "Run", cell: (run) => <Chip to={["run", run.run_id]} id={run.run_id} /> },
                  { name: "Made", cell: (run) => <Age at={run.created_at} /> },
                  { name: "Run time", cell: (run) => (run.started_at ? duration(between(run.started_at, run.ended_at)) : "–"), end: true },
                ]}
              />
            )}
            {rows.length < ids.length && <p class="quiet">{ids.length - rows.length} of its last {ids.length} runs are deleted, with their threads.</p>}
            {!ids.length && <p class="quiet">It has made no run yet.</p>}
          </>
        )}
      </Loaded>
    </section>
  );
}

/** Return the newest runs of *crons* by their ids. */
export function useNewest(crons: readonly Cron[]): ReadonlyMap<string, CronRun> {
  const ids = crons.flatMap((cron) => cron.recent_run_ids.slice(0, IN_LIST));
  const runs = useKept(useLive((stop) => found(ids, stop), [ids], EVERY_MS));
  return new Map(runs.data?.map((run) => [run.run_id, run]));
}

/** How the newest runs of *cron* ended, as far as they are there. */
export function NewestDots({ cron, runs }: { cron: Cron; runs: ReadonlyMap<string, CronRun> }) {
  const known = cron.recent_run_ids.slice(0, IN_LIST).flatMap((id) => runs.get(id) ?? []);
  return known.length ? <Dots runs={known} /> : <span class="quiet">–</span>;
}

function Dots({ runs }: { runs: CronRun[] }) {
  return (
    <ol class="outcomes" aria-label="Outcomes, the oldest first">
      {runs.toReversed().map((run) => (
        <li key={run.run_id}>
          <a href={link(["run", run.run_id])} title={[shown(run), run.end_reason].filter(Boolean).join(", ")} aria-label={`${shown(run)} run`}>
            <span class={`status status-${shown(run)}`} aria-hidden="true">
              {SHAPES[shown(run)] ?? "○"}
            </span>
          </a>
        </li>
      ))}
    </ol>
  );
}

async function found(ids: string[], signal?: AbortSignal): Promise<CronRun[]> {
  if (!ids.length) return [];
  return send<CronRun[]>("POST", "/runs/search", { body: { run_ids: ids, limit: ids.length }, headers: withoutPayload(), signal });
}
