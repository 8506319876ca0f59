import { duration, number, plural } from "../../lib/format";
import { Meter } from "../../lib/charts";
import type { Worker, Workers } from "../../lib/operator";
import { link } from "../../lib/route";
import { type Column, Table } from "../../lib/table";
import { Age, Chip, Empty } from "../../lib/ui";
import { Drain } from "./drain";

const BLOCKED_S = 1;
const NAMED = 3;

export function WorkerTable({ fleet, reload }: { fleet: Workers; reload: () => void }) {
  if (!fleet.workers.length) return <Empty>No worker has registered. Start one with “runlane worker” or “runlane serve”.</Empty>;
  const columns: Column<Worker>[] = [
    {
      name: "Worker",
      cell: (worker) => (
        <span>
          <bdi title={worker.graphs ? `Graphs: ${worker.graphs.join(", ")}` : undefined}>{worker.worker_id}</bdi>
          {worker.worker_id === fleet.here && <span class="quiet"> answers here</span>}
        </span>
      ),
    },
    { name: "State", cell: (worker) => <State worker={worker} /> },
    {
      name: "Slots",
      cell: (worker) => (
        <span class="slots">
          {number(worker.running)} / {number(worker.capacity)}
          <Meter label="Slots in use" value={worker.running} most={worker.capacity} />
        </span>
      ),
    },
    { name: "Runs now", cell: (worker) => <Runs worker={worker} />, wide: true },
    { name: "Loop lag", cell: (worker) => <Lag worker={worker} />, end: true },
    { name: "Renewed", cell: (worker) => `${duration(worker.renewed_s)} ago`, end: true },
    { name: "Started", cell: (worker) => <Age at={worker.started_at} />, wide: true },
    { name: "Build", cell: (worker) => <Chip to={["overview"]} query={{ build: worker.build }} id={worker.build} />, wide: true },
    { name: "Process", cell: (worker) => [worker.host, worker.pid].filter(Boolean).join(" "), wide: true },
    { name: "Version", cell: (worker) => worker.version, wide: true },
    { name: "", cell: (worker) => <Drain worker={worker} done={reload} /> },
  ];
  return <Table label="Workers" rows={fleet.workers} id={(worker) => worker.worker_id} columns={columns} />;
}

const SHAPES = { ready: "●", draining: "◷", silent: "▲" };
const CLASSES = { ready: "status-success", draining: "status-interrupted", silent: "status-error" };

function State({ worker }: { worker: Worker }) {
  return (
    <span class={`status ${CLASSES[worker.state]}`}>
      <span class="shape" aria-hidden="true">
        {SHAPES[worker.state]}
      </span>
      {worker.state}
      {worker.state === "draining" && worker.draining_since && (
        <small>
          {worker.running ? `${plural(worker.running, "run")} left` : "no runs left"}, since <Age at={worker.draining_since} />
        </small>
      )}
    </span>
  );
}

function Lag({ worker }: { worker: Worker }) {
  if (worker.lag_s === null) return <>–</>;
  const text = duration(worker.lag_s);
  return worker.lag_s < BLOCKED_S ? <>{text}</> : <b class="status-error">▲ {text}: blocked</b>;
}

function Runs({ worker }: { worker: Worker }) {
  const rest = worker.running - NAMED;
  return (
    <span class="chips">
      {worker.runs.slice(0, NAMED).map((run) => (
        <Chip key={run} to={["run", run]} id={run} />
      ))}
      {rest > 0 && <a href={link(["runs"], { worker: worker.worker_id, status: "running" })}>{number(rest)} more</a>}
    </span>
  );
}
