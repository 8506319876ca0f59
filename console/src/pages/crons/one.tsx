import { useState } from "preact/hooks";
import { get, path, send } from "../../lib/api";
import { useAssistantNames } from "../../lib/assistants";
import { moment } from "../../lib/format";
import { Json } from "../../lib/json";
import { useLive } from "../../lib/live";
import { withoutPayload } from "../../lib/runs";
import { go, link } from "../../lib/route";
import { permits, seesPayload } from "../../lib/session";
import { Age, Button, Chip, Dialog, Facts, Head, Hidden, Loaded } from "../../lib/ui";
import { Outcomes } from "./outcomes";
import { type Cron, CronState, isLate, LastRun, Pause, ROUTE } from "./parts";
import { RunNow } from "./run-now";

const EVERY_MS = 3_000;

/** A cron: when it runs next, how its last runs ended, and what they are asked for. */
export function OneCron({ id }: { id: string }) {
  const route = path(ROUTE, id);
  const live = useLive((stop) => send<Cron>("GET", route, { signal: stop, headers: withoutPayload() }), [id], EVERY_MS);
  const names = useAssistantNames();
  return (
    <>
      <Head title="Cron" live={live} sentence={live.data && sentence(live.data)}>
        <a href={link(["crons"])}>All crons</a>
        {live.data && (
          <>
            <RunNow cron={live.data} />
            <Pause cron={live.data} done={live.reload} code />
            {permits("crons.delete") && <Delete cron={live.data} />}
          </>
        )}
      </Head>
      <Loaded live={live}>
        {(cron) => (
          <>
            <Facts
              facts={[
                ["State", <CronState cron={cron} />],
                ["Schedule", <code>{cron.schedule}</code>],
                ["Time zone", cron.timezone ?? "UTC"],
                ["Assistant", <Chip to={["assistants", cron.assistant_id]} id={cron.assistant_id} label={names.get(cron.assistant_id)} />],
                ["Thread", cron.thread_id ? <Chip to={["thread", cron.thread_id]} id={cron.thread_id} /> : "a new one for each run"],
                ["Owner", cron.user_id],
                ["Missed times", MISSED[cron.missed] ?? cron.missed],
                ["While the last run goes on", OVERLAP[cron.overlap] ?? cron.overlap],
                ["Ends", cron.end_time && moment(cron.end_time)],
                ["Last run", <LastRun cron={cron} />],
              ]}
            />
            <Slots cron={cron} />
            <Outcomes key={cron.last_run_id} cron={cron} />
            <Asked id={id} />
          </>
        )}
      </Loaded>
    </>
  );
}

const MISSED: Record<string, string> = { skip: "are skipped", once: "are made up for once", all: "are all made up for" };
const OVERLAP: Record<string, string> = { allow: "the next one starts too", skip: "the next one is skipped", enqueue: "the next one waits" };

function sentence(cron: Cron): string {
  if (cron.error) return `The last time it could not start its run: ${cron.error.error}${cron.error.message ? `: ${cron.error.message}` : ""}.`;
  if (!cron.enabled) return "It is paused: no run starts until it is resumed.";
  if (!cron.next_run_date) return "It has ended: there is no next time.";
  const next = moment(cron.next_run_date);
  return isLate(cron) ? `It is late: its run was due at ${next}.` : `Its next run starts at ${next}.`;
}

function Slots({ cron }: { cron: Cron }) {
  const slots = cron.next_slots ?? (cron.next_run_date ? [cron.next_run_date] : []);
  if (!cron.enabled || !slots.length) return null;
  return (
    <section class="section" aria-labelledby="slots">
      <div class="section-head">
        <h2 id="slots">Next times</h2>
      </div>
      <ol class="slots-next">
        {slots.map((slot) => (
          <li key={slot}>
            {moment(slot)} <span class="quiet">(<Age at={slot} />)</span>
          </li>
        ))}
      </ol>
    </section>
  );
}

/** What its runs are asked for, read when somebody looks: it is payload. */
function Asked({ id }: { id: string }) {
  const [shown, setShown] = useState(false);
  return (
    <details class="section" onToggle={(event) => setShown(event.currentTarget.open)}>
      <summary>What its runs are asked for</summary>
      {!seesPayload.value ? <Hidden /> : shown && <Payload id={id} />}
    </details>
  );
}

function Payload({ id }: { id: string }) {
  const live = useLive((stop) => get<Cron>(path(ROUTE, id), {}, stop), [id], null);
  return (
    <Loaded live={live} rows={3}>
      {(cron) => <Json value={cron.payload ?? {}} open={5} />}
    </Loaded>
  );
}

function Delete({ cron }: { cron: Cron }) {
  const [asks, setAsks] = useState(false);
  const remove = async () => {
    await send("DELETE", path(ROUTE, cron.cron_id));
    go(["crons"]);
  };
  return (
    <>
      <Button kind="danger" onClick={() => setAsks(true)}>
        Delete
      </Button>
      {asks && (
        <Dialog title="Delete this cron?" onClose={() => setAsks(false)}>
          <p>No run starts by it any more. Runs that it has started go on, and their threads stay.</p>
          <div class="actions">
            <Button kind="danger" onClick={remove}>
              Delete
            </Button>
            <Button onClick={() => setAsks(false)}>Keep it</Button>
          </div>
        </Dialog>
      )}
    </>
  );
}
