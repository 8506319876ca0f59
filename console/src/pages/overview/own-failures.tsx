/** Failures of an owner: the newest failed runs of a day, grouped by graph and error. */
import { number } from "../../lib/format";
import { visibleText } from "../../lib/plain";
import { link } from "../../lib/route";
import type { RunSummary } from "../../lib/runs";
import { Table } from "../../lib/table";
import { Age } from "../../lib/ui";

interface Group {
  id: string;
  error: string;
  graph: string;
  /** The newest first. */
  runs: RunSummary[];
}

export function OwnFailures({ failures, most }: { failures: RunSummary[]; most: number }) {
  if (!failures.length) return null;
  return (
    <section class="section" aria-labelledby="failures">
      <div class="section-head">
        <h2 id="failures">Failures of the last 24 hours</h2>
        {failures.length >= most && <span class="quiet">of the newest {number(most)} failed runs</span>}
      </div>
      <Table
        label="Groups of failures"
        rows={groupsOf(failures)}
        id={(group) => group.id}
        open={(group) => link(["run", group.runs[0]!.run_id])}
        columns={[
          {
            name: "Error",
            cell: ({ error, runs }) => (
              <span>
                <a href={link(["run", runs[0]!.run_id])} title="The last run that failed so">
                  {error}
                </a>{" "}
                <span class="message quiet" title={visibleText(runs[0]!.error?.message ?? "")}>
                  <bdi>{visibleText(runs[0]!.error?.message ?? "")}</bdi>
                </span>
              </span>
            ),
          },
          { name: "Graph", cell: ({ graph }) => <a href={link(["runs"], { status: "error,timeout", graph })}>{graph}</a> },
          { name: "Runs", cell: ({ runs }) => number(runs.length), end: true },
          { name: "Threads", cell: ({ runs }) => number(new Set(runs.map((run) => run.thread_id)).size), end: true },
          { name: "Last", cell: ({ runs }) => <Age at={runs[0]!.ended_at ?? runs[0]!.created_at} />, end: true },
        ]}
      />
    </section>
  );
}

function groupsOf(failures: RunSummary[]): Group[] {
  const groups = new Map<string, Group>();
  for (const run of failures) {
    const error = run.error?.error ?? run.end_reason ?? run.status;
    const graph = run.graph_id ?? "";
    const id = `${graph} ${error}`;
    const group = groups.get(id) ?? { id, error, graph, runs: [] };
    group.runs.push(run);
    groups.set(id, group);
  }
  return [...groups.values()].sort((a, b) => b.runs.length - a.runs.length);
}
