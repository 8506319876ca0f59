/** Builds side by side: who executes them, and how their runs end. */
import { number, plural } from "../../lib/format";
import type { Build, Total, Workers } from "../../lib/operator";
import { link } from "../../lib/route";
import { Table } from "../../lib/table";
import { Age, Chip } from "../../lib/ui";

interface Row {
  build: string;
  live?: Build;
  total?: Total;
}

export function Builds({ builds = [], workers, newest }: { builds?: Total[]; workers?: Workers; newest?: string }) {
  const rows = joined(builds, workers?.builds ?? []);
  const draining = workers?.workers.filter((worker) => worker.state === "draining") ?? [];
  if (rows.length < 2 && !draining.length) return null;
  return (
    <section class="section" aria-labelledby="deploys">
      <div class="section-head">
        <h2 id="deploys">Drains and deploys</h2>
        <a href={link(["workers"])}>Workers</a>
      </div>
      {draining.map((worker) => (
        <p key={worker.worker_id}>
          Worker {worker.worker_id} drains{worker.draining_since && <> since <Age at={worker.draining_since} /></>}:{" "}
          {worker.running ? `${plural(worker.running, "run")} left` : "no run left"}.
        </p>
      ))}
      <Table
        label="Builds"
        rows={rows}
        id={(row) => row.build}
        columns={[
          {
            name: "Build",
            cell: (row) => (
              <span>
                <Chip to={["overview"]} query={{ build: row.build }} id={row.build} /> {row.build === newest && <span class="quiet">newest</span>}
              </span>
            ),
          },
          { name: "Workers", cell: (row) => number(row.live?.workers ?? 0), end: true },
          { name: "Running", cell: (row) => number(row.live?.running ?? 0), end: true },
          { name: "Threads that wait for it", cell: (row) => number(row.live?.parked_threads ?? 0), end: true, wide: true },
          { name: "Runs ended", cell: (row) => number(row.total?.runs ?? 0), end: true },
          { name: "Failed", cell: (row) => failedOf(row.total), end: true },
          { name: "First ended", cell: (row) => row.total?.first_ended_at && <Age at={row.total.first_ended_at} />, wide: true },
        ]}
      />
      <p class="quiet">Runs that ended since yesterday, in UTC.</p>
    </section>
  );
}

function joined(totals: Total[], live: Build[]): Row[] {
  const names = new Set([...live.map((one) => one.build), ...totals.map((one) => one.name)]);
  return [...names].map((build) => ({
    build,
    live: live.find((one) => one.build === build),
    total: totals.find((one) => one.name === build),
  }));
}

function failedOf(total: Total | undefined): string {
  if (!total?.runs) return "–";
  const share = ((total.failed ?? 0) / total.runs) * 100;
  return `${number(total.failed ?? 0)} (${share >= 10 || !share ? Math.round(share) : share.toFixed(1)} %)`;
}
