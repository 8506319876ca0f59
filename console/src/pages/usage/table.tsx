import { cost, duration, number } from "../../lib/format";
import type { Total } from "../../lib/operator";
import { link, place } from "../../lib/route";
import { type Columns, Table } from "../../lib/table";
import type { Shown } from "./measures";

const WHERE: Record<string, (name: string) => string> = {
  owner: (owner) => link(["runs"], { owner }),
  graph: (graph) => link(["runs"], { graph }),
  status: (status) => link(["runs"], { status }),
  build: (build) => link(["overview"], { build }),
};

export function TotalTable({ view, totals }: { view: Shown; totals: Total[] }) {
  const ofRuns = totals.some((total) => total.runs !== null);
  const priced = totals.some((total) => total.cost !== null);
  const rows = view.by === "day" ? totals : [...totals].sort((a, b) => view.measure.of(b) - view.measure.of(a));
  const columns: Columns<Total> = [
    { name: view.by[0]!.toUpperCase() + view.by.slice(1), cell: (total) => <Name view={view} name={total.name} /> },
    ofRuns && { name: "Runs", cell: (total) => number(total.runs ?? 0), end: true },
    ofRuns && { name: "Failed", cell: (total) => number(total.failed ?? 0), end: true },
    { name: "Input tokens", cell: (total) => number(total.input_tokens), end: true, wide: true },
    { name: "Output tokens", cell: (total) => number(total.output_tokens), end: true, wide: true },
    { name: "Tokens", cell: (total) => number(total.total_tokens), end: true },
    priced && { name: "Cost", cell: (total) => (total.cost === null ? "–" : cost(total.cost)), end: true },
    ofRuns && { name: "Run time", cell: (total) => duration(total.executing_s ?? 0), end: true },
    ofRuns && { name: "Queue time", cell: (total) => duration(total.queued_s ?? 0), end: true, wide: true },
  ];
  return <Table label={`Usage by ${view.by}`} rows={rows} id={(total) => total.name} columns={columns} />;
}

function Name({ view, name }: { view: Shown; name: string }) {
  if (!name) return <span class="quiet">(none)</span>;
  const to = view.by === "model" ? link(["usage"], { ...place.value.query, by: "owner", model: name }) : WHERE[view.by]?.(name);
  return to ? (
    <a href={to}>
      <bdi>{name}</bdi>
    </a>
  ) : (
    <bdi>{name}</bdi>
  );
}
