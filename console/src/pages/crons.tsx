/** Runs that start by the clock. */
import { ApiError, page } from "../lib/api";
import { useAssistantNames } from "../lib/assistants";
import { Choice } from "../lib/fields";
import { plural } from "../lib/format";
import { withoutPayload } from "../lib/runs";
import { More, usePaged } from "../lib/paged";
import { link, place } from "../lib/route";
import { type Columns, Table } from "../lib/table";
import { Age, Chip, Empty, Head, Loaded } from "../lib/ui";
import { OneCron } from "./crons/one";
import { type CronRun, NewestDots, useNewest } from "./crons/outcomes";
import { type Cron, CronState, isLate, LastRun, Pause, Zone } from "./crons/parts";
import { RunNow } from "./crons/run-now";

const EVERY_MS = 5_000;
const ROWS = 50;

export default function Crons() {
  const cron = place.value.path[1];
  return cron ? <OneCron id={cron} /> : <AllCrons />;
}

function AllCrons() {
  const { state } = place.value.query;
  const enabled = state ? state === "on" : undefined;
  const load = async (after: string | undefined, stop?: AbortSignal) => {
    if (state && !["on", "off"].includes(state)) throw new ApiError(422, "invalid_request", `“state=${state}” is none of on, off.`);
    return page<Cron>("POST", "/runs/crons/search", { body: { enabled, limit: ROWS, offset: Number(after ?? 0) }, headers: withoutPayload(), signal: stop });
  };
  const paged = usePaged(load, [state], EVERY_MS);
  const { live, rows } = paged;
  const newest = useNewest(rows);
  const names = useAssistantNames();
  return (
    <>
      <Head title="Crons" live={live} sentence={live.data && sentence(rows)} />
      <div class="filters">
        <Choice
          name="state"
          label="State"
          options={[
            ["", "all"],
            ["on", "on"],
            ["off", "paused"],
          ]}
        />
      </div>
      <Loaded live={live}>
        {() =>
          rows.length ? (
            <Table label="Crons" rows={rows} id={(cron) => cron.cron_id} open={(cron) => link(["crons", cron.cron_id])} columns={columnsOf(rows, names, newest, live.reload)} />
          ) : (
            <Empty>
              {state ? "No such cron." : "No run starts by the clock yet. Make one: runlane crons create '0 9 * * 1-5' ASSISTANT --timezone Europe/Oslo"}
            </Empty>
          )
        }
      </Loaded>
      <More paged={paged} />
    </>
  );
}

function columnsOf(crons: Cron[], names: ReadonlyMap<string, string>, newest: ReadonlyMap<string, CronRun>, reload: () => void): Columns<Cron> {
  return [
    { name: "State", cell: (cron) => <CronState cron={cron} /> },
    {
      name: "Schedule",
      cell: (cron) => (
        <span>
          <a href={link(["crons", cron.cron_id])} class="mono">
            {cron.schedule}
          </a>{" "}
          <Zone cron={cron} />
        </span>
      ),
    },
    { name: "Assistant", cell: (cron) => <Chip to={["assistants", cron.assistant_id]} id={cron.assistant_id} label={names.get(cron.assistant_id)} /> },
    { name: "Next", cell: (cron) => (cron.enabled && cron.next_run_date ? <Age at={cron.next_run_date} /> : "–") },
    { name: "Last", cell: (cron) => <LastRun cron={cron} /> },
    { name: "Outcomes", cell: (cron) => <NewestDots cron={cron} runs={newest} /> },
    crons.some((cron) => cron.user_id) && { name: "Owner", cell: (cron) => cron.user_id, wide: true },
    {
      name: "",
      cell: (cron) => (
        <span class="row-actions">
          <RunNow cron={cron} />
          <Pause cron={cron} done={reload} />
        </span>
      ),
    },
  ];
}

function sentence(crons: Cron[]): string {
  const late = crons.filter(isLate).length;
  const failing = crons.filter((cron) => cron.error).length;
  if (!crons.length) return "No cron.";
  const next = crons.filter((cron) => cron.enabled && cron.next_run_date).sort((a, b) => a.next_run_date!.localeCompare(b.next_run_date!))[0];
  const problems = [
    late && `${plural(late, "cron is", "crons are")} late`,
    failing && `${plural(failing, "cron", "crons")} could not start the last run`,
  ].filter(Boolean);
  if (problems.length) return `${problems.join("; ")}.`;
  if (!next) return "All crons are paused.";
  return `${plural(crons.filter((cron) => cron.enabled).length, "cron is", "crons are")} on, and none is late.`;
}
