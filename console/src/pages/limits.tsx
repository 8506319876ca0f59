/** Each limit, with its setting, and how much of it is used now. */
import { get } from "../lib/api";
import { Meter } from "../lib/charts";
import { bytes, duration, number, plural } from "../lib/format";
import { useLive } from "../lib/live";
import { link } from "../lib/route";
import { Table } from "../lib/table";
import { Chip, Head, Loaded } from "../lib/ui";

const EVERY_MS = 5_000;
const NAMED = 3;

interface Limit {
  setting: string;
  scope: "process" | "owner" | "assistant" | "graph" | "thread" | "run" | "request";
  unit: string;
  limit: number | null;
  use: number | null;
  most: { name: string; use: number }[];
  complete: boolean;
}

export default function Limits() {
  const live = useLive((stop) => get<{ limits: Limit[] }>("/operator/limits", {}, stop), [], EVERY_MS);
  return (
    <>
      <Head title="Limits" live={live} sentence={live.data && sentence(live.data.limits)} />
      <Loaded live={live}>
        {({ limits }) => (
          <Table
            label="Limits"
            rows={limits}
            id={(one) => one.setting}
            columns={[
              {
                name: "Setting",
                cell: (one) => (
                  <a class="mono" href={link(["settings"], { setting: one.setting })}>
                    {one.setting}
                  </a>
                ),
              },
              { name: "For each", cell: (one) => one.scope },
              { name: "Limit", cell: (one) => (one.limit === null ? "none" : shown(one, one.limit)), end: true },
              { name: "Most used", cell: (one) => <Use limit={one} /> },
              { name: "By", cell: (one) => <Most limit={one} />, wide: true },
            ]}
          />
        )}
      </Loaded>
    </>
  );
}

const shown = ({ unit }: Limit, value: number): string =>
  unit === "bytes" ? bytes(value) : unit === "seconds" ? (value ? duration(value) : "none") : `${number(value)} ${unit}`;

function Use({ limit }: { limit: Limit }) {
  if (limit.use === null) return <span class="quiet">not counted</span>;
  return (
    <span class="slots">
      {number(limit.use)}
      {limit.complete ? "" : ", or more"}
      {limit.limit !== null && <Meter label={limit.setting} value={limit.use} most={limit.limit} />}
    </span>
  );
}

function Most({ limit: { scope, most } }: { limit: Limit }) {
  return (
    <span class="chips">
      {most.slice(0, NAMED).map((one) => (
        <span key={one.name}>
          {scope === "thread" ? (
            <Chip to={["thread", one.name]} id={one.name} />
          ) : !one.name ? (
            "(no owner)"
          ) : (
            <Chip to={["runs"]} query={{ [scope]: one.name, status: "running" }} id={one.name} label={scope === "assistant" ? undefined : one.name} />
          )}{" "}
          {number(one.use)}
        </span>
      ))}
    </span>
  );
}

function sentence(limits: Limit[]): string {
  const full = limits.filter((one) => one.limit !== null && one.use !== null && one.use >= one.limit);
  if (full.length) return `${full.map((one) => one.setting).join(", ")}: used up, so that more has to wait or is refused.`;
  const counted = limits.filter((one) => one.limit !== null && one.use !== null);
  const most = counted.sort((a, b) => b.use! / b.limit! - a.use! / a.limit!)[0];
  const share = most ? Math.round((most.use! / most.limit!) * 100) : 0;
  return share ? `No limit is used up; ${share} % of ${most!.setting} is.` : `No limit is used up; ${plural(counted.length, "is counted", "are counted")}.`;
}
