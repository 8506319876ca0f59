/** What the run has used: tokens by model. */
import { cost, number, plural } from "../../lib/format";
import { type Columns, Table } from "../../lib/table";
import { Empty, Facts } from "../../lib/ui";
import type { Run } from "./data";

export function UsageTab({ run }: { run: Run }) {
  const { usage } = run;
  const models = Object.entries(usage.by_model).map(([name, used]) => ({ name, ...used, cost: run.cost_by_model[name] }));
  if (!models.length) return <Empty>No model has reported what it used.</Empty>;
  const columns: Columns<(typeof models)[number]> = [
    { name: "Model", cell: (row) => <bdi>{row.name}</bdi> },
    { name: "Calls", cell: (row) => number(row.llm_calls), end: true },
    { name: "Input", cell: (row) => number(row.input_tokens), end: true },
    { name: "Cached input", cell: (row) => number(row.cached_input_tokens), end: true },
    { name: "Output", cell: (row) => number(row.output_tokens), end: true },
    { name: "Total", cell: (row) => number(row.total_tokens), end: true },
    run.cost !== null && { name: "Cost", cell: (row) => (row.cost === undefined ? "no price" : cost(row.cost)), end: true },
  ];
  return (
    <div class="usage">
      <p>
        {plural(usage.llm_calls, "model call")} used {plural(usage.total_tokens, "token")}
        {usage.total_tokens === 0 && ": the model does not report tokens"}
        {run.cost !== null && `, which cost ${cost(run.cost)} by the prices that hold now`}.
      </p>
      <Table
        label="Usage by model"
        rows={models}
        id={(row) => row.name}
        columns={columns}
      />
      <Facts
        facts={[
          ["Messages", number(usage.message_count)],
          ["Attempts", number(run.attempt)],
        ]}
      />
    </div>
  );
}
