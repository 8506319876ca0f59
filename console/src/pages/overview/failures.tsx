/** Failures in groups: the same graph, the same error, and the same message but for numbers and ids. */
import { Bars } from "../../lib/charts";
import { moment, number, plural } from "../../lib/format";
import type { Live } from "../../lib/live";
import type { FailureGroup } from "../../lib/operator";
import { visibleText } from "../../lib/plain";
import { link } from "../../lib/route";
import { type Column, Table } from "../../lib/table";
import { Age, Button, Chip, Fresh, Hidden, Loaded } from "../../lib/ui";
import { seesPayload } from "../../lib/session";

interface FailuresProps {
  live: Live<FailureGroup[] | undefined>;
  /** The newest build, if there are others. */
  newest: string | undefined;
  build: string | undefined;
}

export function Failures({ live, newest, build }: FailuresProps) {
  if (!live.error && !live.data?.length && !build) return null;
  return (
    <section class="section" aria-labelledby="failures">
      <div class="section-head">
        <h2 id="failures">Failures of the last 24 hours{build && ` in build ${build}`}</h2>
        <span class="actions">
          {build && <a href={link(["overview"])}>of all builds</a>}
          <Fresh live={live} />
          <Button onClick={live.reload}>Read again</Button>
        </span>
      </div>
      <Loaded live={live} rows={3}>
        {(groups) =>
          groups?.length ? (
            <Table
              label="Groups of failures"
              rows={groups}
              id={(group) => group.group_id}
              open={(group) => link(["run", group.run_id])}
              columns={columnsOf(newest)}
            />
          ) : (
            <p class="quiet">No run failed.</p>
          )
        }
      </Loaded>
    </section>
  );
}

function columnsOf(newest: string | undefined): Column<FailureGroup>[] {
  return [
    {
      name: "Error",
      cell: (group) => (
        <span>
          <a href={link(["run", group.run_id])} title="The last run that failed so">
            {group.error}
          </a>{" "}
          {group.first_build === newest && <span class="tag">new in this build</span>}
          <span class="message quiet" title={visibleText(group.message ?? "")}>
            {seesPayload.value ? <bdi>{visibleText(group.message ?? "")}</bdi> : <Hidden />}
          </span>
        </span>
      ),
    },
    { name: "Graph", cell: (group) => <a href={link(["runs"], { status: "error", graph: group.graph_id })}>{group.graph_id}</a> },
    { name: "Runs", cell: (group) => number(group.runs), end: true },
    { name: "Threads", cell: (group) => `${group.threads_estimated ? "~" : ""}${number(group.threads)}`, end: true },
    { name: "First", cell: (group) => <Age at={group.first_at} />, wide: true },
    { name: "Last", cell: (group) => <Age at={group.last_at} /> },
    { name: "Build", cell: (group) => <Chip to={["overview"]} query={{ build: group.last_build }} id={group.last_build} />, wide: true },
    { name: "Trend", cell: (group) => <Trend group={group} />, wide: true },
  ];
}

const HOURS = 24;
const HOUR_MS = 3_600_000;

/** Each of the last 24 hours; the server leaves out those without a failure. */
function Trend({ group }: { group: FailureGroup }) {
  const last = Math.floor(Date.now() / HOUR_MS) * HOUR_MS;
  const hours = Array.from({ length: HOURS }, (_, at) => last - (HOURS - 1 - at) * HOUR_MS);
  const byHour = new Map(group.trend.map((point) => [Date.parse(point.at), point.runs]));
  return (
    <div class="trend">
      <Bars
        label={`${plural(group.runs, "failure")} by hour`}
        columns={hours.map(moment)}
        series={[{ name: "failures", fill: "fill-error", values: hours.map((hour) => byHour.get(hour) ?? 0) }]}
      />
    </div>
  );
}
