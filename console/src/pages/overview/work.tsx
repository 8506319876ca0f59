/** Where the work is now: graphs with their queues and workers; and how runs of the last 24 hours ended. */
import { Legend } from "../../lib/charts";
import { duration, number } from "../../lib/format";
import { useNow } from "../../lib/live";
import type { Endings, Overview } from "../../lib/operator";
import { link } from "../../lib/route";
import { Table } from "../../lib/table";

interface Row {
  graph: string;
  waiting: number;
  oldest?: string;
  running: number;
  workers: string[];
}

export function Work({ overview }: { overview: Overview }) {
  const now = useNow();
  const rows = byGraph(overview);
  return (
    <>
      {rows.length > 0 && (
        <section class="section" aria-labelledby="work">
          <div class="section-head">
            <h2 id="work">Graphs at work</h2>
          </div>
          <Table
            label="Graphs at work"
            rows={rows}
            id={(row) => row.graph}
            open={(row) => link(["runs"], { graph: row.graph })}
            columns={[
              { name: "Graph", cell: (row) => <a href={link(["runs"], { graph: row.graph })}>{row.graph}</a> },
              { name: "Running", cell: (row) => <a href={link(["runs"], { graph: row.graph, status: "running" })}>{number(row.running)}</a>, end: true },
              { name: "Waiting", cell: (row) => <a href={link(["runs"], { graph: row.graph, status: "pending" })}>{number(row.waiting)}</a>, end: true },
              { name: "Oldest waits", cell: (row) => row.oldest && duration((now - Date.parse(row.oldest)) / 1000), end: true },
              { name: "On workers", cell: (row) => row.workers.join(", "), wide: true },
            ]}
          />
        </section>
      )}
      {overview.endings.length > 0 && (
        <section class="section" aria-labelledby="endings">
          <div class="section-head">
            <h2 id="endings">Endings of the last 24 hours</h2>
          </div>
          <Share endings={overview.endings} />
        </section>
      )}
    </>
  );
}

function byGraph({ queue, running_by: running }: Overview): Row[] {
  const graphs = new Set([...queue, ...running].map((one) => one.graph_id));
  return [...graphs].sort().map((graph) => {
    const waiting = queue.find((one) => one.graph_id === graph);
    const here = running.filter((one) => one.graph_id === graph);
    return {
      graph,
      waiting: waiting?.runs ?? 0,
      oldest: waiting?.oldest_at,
      running: here.reduce((all, one) => all + one.runs, 0),
      workers: here.map((one) => `${one.worker_id} (${one.runs})`),
    };
  });
}

/** One bar, a part for each ending. */
function Share({ endings }: { endings: Endings[] }) {
  const all = endings.reduce((sum, one) => sum + one.runs, 0);
  let at = 0;
  return (
    <>
      <svg class="share" viewBox="0 0 1000 14" preserveAspectRatio="none" aria-hidden="true">
        {endings.map((one) => {
          const width = (one.runs / all) * 1000;
          const x = at;
          at += width;
          return <rect key={nameOf(one)} class={fillOf(one)} x={x} width={Math.max(1, width - 2)} height={14} />;
        })}
      </svg>
      <Legend
        items={endings.map((one) => ({
          name: nameOf(one),
          fill: fillOf(one),
          value: number(one.runs),
          to: link(["runs"], { status: one.status, cause: one.end_reason }),
        }))}
      />
    </>
  );
}

const nameOf = ({ status, end_reason: cause }: Endings): string => (cause && cause !== status ? `${status}: ${cause}` : status);
/** A run that waits for a person succeeded so far. */
const fillOf = ({ status, end_reason: cause }: Endings): string => (cause === "paused" ? "fill-paused" : `fill-${status}`);
