import { get } from "../../lib/api";
import { number } from "../../lib/format";
import { useLive } from "../../lib/live";
import type { Total, Workers } from "../../lib/operator";
import { Table } from "../../lib/table";
import { Chip } from "../../lib/ui";

const EVERY_MS = 15_000;

/** Builds, with what executes in them, what goes on in them alone, and how their runs ended. */
export function BuildTable({ fleet }: { fleet: Workers }) {
  const totals = useLive((stop) => get<Total[]>("/operator/totals", { by: "build" }, stop), [], EVERY_MS);
  if (!fleet.builds.length) return null;
  const of = (build: string) => totals.data?.find((one) => one.name === build);
  return (
    <section class="section" aria-labelledby="builds">
      <div class="section-head">
        <h2 id="builds">Builds</h2>
      </div>
      <Table
        label="Builds"
        rows={fleet.builds}
        id={(build) => build.build}
        columns={[
          { name: "Build", cell: (build) => <Chip to={["overview"]} query={{ build: build.build }} id={build.build} title="Failures of this build" /> },
          { name: "Workers", cell: (build) => number(build.workers), end: true },
          { name: "Running", cell: (build) => number(build.running), end: true },
          { name: "Threads that wait for it", cell: (build) => number(build.parked_threads), end: true },
          { name: "Runs ended", cell: (build) => number(of(build.build)?.runs ?? 0), end: true },
          { name: "Failed", cell: (build) => number(of(build.build)?.failed ?? 0), end: true },
        ]}
      />
      <p class="quiet">
        Threads that wait for it wait for an answer, and go on in this build alone; a build without workers leaves them behind. Ended and
        failed: since yesterday, in UTC.
      </p>
    </section>
  );
}
