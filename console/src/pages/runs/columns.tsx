/** The columns of tables of runs. */
import { cost, duration, number } from "../../lib/format";
import { type RunSummary, SLOT, causeOf, shownStatus, timesOf } from "../../lib/runs";
import type { Columns } from "../../lib/table";
import { shortened } from "../../lib/threads";
import { Age, Chip, Status } from "../../lib/ui";

const BUILD_CHARS = 7;

/** Return the columns for *runs*; *now* is for times that go on. */
export function runColumns(runs: readonly RunSummary[], now: number, { owners, threads = true }: { owners: boolean; threads?: boolean }): Columns<RunSummary> {
  return [
    { name: "Status", cell: (run) => <Status status={shownStatus(run)} /> },
    { name: "Run", cell: (run) => <Chip to={["run", run.run_id]} id={run.run_id} /> },
    threads && { name: "Thread", cell: (run) => <Chip to={["thread", run.thread_id]} id={run.thread_id} label={shortened(run.usage.first_human_message)} /> },
    { name: "Graph", cell: (run) => <Graph run={run} /> },
    owners && { name: "Owner", cell: (run) => <Owner owner={run.owner} /> },
    { name: "Cause", cell: (run) => causeOf(run) && <Cause run={run} /> },
    { name: "Queued", end: true, wide: true, cell: (run) => timesOf(run, now).queue },
    { name: "Run time", end: true, cell: (run) => timesOf(run, now).run },
    { name: "Tokens", end: true, wide: true, cell: (run) => (run.usage.total_tokens ? number(run.usage.total_tokens) : "") },
    runs.some((run) => run.cost !== null) && { name: "Cost", end: true, wide: true, cell: (run) => (run.cost === null ? "" : cost(run.cost)) },
    { name: "Asked for", end: true, cell: (run) => <Age at={run.created_at} now={now} /> },
  ];
}

function Cause({ run }: { run: RunSummary }) {
  const other = run.waiting_on?.run_id;
  if (!other) return <bdi title={run.waiting_on?.reason === "slots" ? `${causeOf(run)} ${SLOT}` : causeOf(run)}>{shortened(causeOf(run))}</bdi>;
  return (
    <>
      waits for run <Chip to={["run", other]} id={other} />
    </>
  );
}

function Graph({ run }: { run: RunSummary }) {
  if (!run.graph_id) return null;
  const name = run.build ? `${run.graph_id}@${run.build.slice(0, BUILD_CHARS)}` : run.graph_id;
  return <Chip to={["assistants", run.assistant_id ?? run.graph_id]} id={run.assistant_id ?? run.graph_id} label={name} title={`${run.graph_id}, version ${run.build ?? "not known yet"}`} />;
}

function Owner({ owner }: { owner: string }) {
  return owner ? <Chip to={["runs"]} query={{ owner }} id={owner} label={owner} /> : null;
}

/** Return how long the oldest of *runs* has waited. */
export function oldestWait(runs: readonly RunSummary[], now: number): string | undefined {
  const waiting = runs.filter((run) => run.status === "pending").map((run) => Date.parse(run.created_at));
  return waiting.length ? duration((now - Math.min(...waiting)) / 1_000) : undefined;
}
