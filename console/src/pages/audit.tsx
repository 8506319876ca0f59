/** Who of the operators did what, to what, from where. */
import { page } from "../lib/api";
import { TextField } from "../lib/fields";
import { moment, number, plural } from "../lib/format";
import { More, usePaged } from "../lib/paged";
import { link, place, setQuery } from "../lib/route";
import { me } from "../lib/session";
import { type Column, Table } from "../lib/table";
import { Age, Chip, Empty, Facts, Head, Loaded } from "../lib/ui";
import { Button, Dialog } from "../lib/ui";
import { Keys } from "./audit/keys";

const EVERY_MS = 5_000;
const ROWS = 50;

export interface Act {
  audit_id: string;
  recorded_at: string;
  actor: string;
  key_id: string | null;
  action: string;
  route: string;
  subject: Record<string, string | string[]>;
  request_id: string | null;
  address: string | null;
  status: number | null;
}

export default function Audit() {
  const { actor, action, act } = place.value.query;
  const load = (before: string | undefined, stop?: AbortSignal) => page<Act>("GET", "/audit", { query: { actor, action, before, limit: ROWS }, signal: stop });
  const paged = usePaged(load, [actor, action], EVERY_MS);
  const { live, rows } = paged;
  const opened = rows.find((one) => one.audit_id === act);
  return (
    <>
      <Head title="Audit" live={live} sentence={live.data && sentence(rows, paged.more !== undefined)} />
      <div class="filters">
        <TextField name="actor" label="Who" />
        <TextField name="action" label="Did" />
      </div>
      <Loaded live={live}>
        {() =>
          rows.length ? (
            <Table label="Acts" rows={rows} id={(one) => one.audit_id} open={(one) => link(["audit"], { actor, action, act: one.audit_id })} columns={COLUMNS} />
          ) : (
            <Empty>
              {actor || action
                ? "Nothing such was done."
                : me.value?.identity
                  ? "No operator did anything yet."
                  : "This server asks nobody who they are, so that no act is of an operator. Set api_keys, and acts are recorded here."}
            </Empty>
          )
        }
      </Loaded>
      <More paged={paged} />
      {opened && <OneAct act={opened} />}
      <Keys />
    </>
  );
}

const COLUMNS: Column<Act>[] = [
  { name: "When", cell: (act) => <Age at={act.recorded_at} /> },
  { name: "Who", cell: (act) => <bdi>{act.actor}</bdi> },
  { name: "Did", cell: (act) => <a href={link(["audit"], { ...place.value.query, act: act.audit_id })}>{act.action}</a> },
  { name: "What", cell: (act) => <Subject act={act} /> },
  { name: "From", cell: (act) => act.address, wide: true },
  { name: "Answer", cell: (act) => <Answer status={act.status} />, end: true },
];

const PAGES: Record<string, string> = { run_id: "run", thread_id: "thread", assistant_id: "assistants", cron_id: "crons" };

function Subject({ act }: { act: Act }) {
  return (
    <span class="chips">
      {Object.entries(act.subject).map(([name, value]) => {
        const [first = "", ...rest] = [value].flat();
        const page = PAGES[name];
        return (
          <span key={name}>
            <span class="quiet">{name.replace(/_id$/, "")} </span>
            {page ? <Chip to={[page, first]} id={first} /> : <bdi>{first}</bdi>}
            {rest.length > 0 && <span class="quiet"> and {number(rest.length)} more</span>}
          </span>
        );
      })}
    </span>
  );
}

function Answer({ status }: { status: number | null }) {
  if (status === null) return <span class="quiet">not known</span>;
  return <span class={status >= 400 ? "status-error" : undefined}>{status >= 400 ? `▲ ${status}` : status}</span>;
}

function OneAct({ act }: { act: Act }) {
  const close = () => setQuery({ act: undefined });
  return (
    <Dialog title={`${act.actor}: ${act.action}`} onClose={close}>
      <Facts
        facts={[
          ["When", moment(act.recorded_at)],
          ["Who", act.actor],
          ["Key", act.key_id && <code>{act.key_id}</code>],
          ["Route", <code>{act.route}</code>],
          ["What", <Subject act={act} />],
          ["Everything asked", <code>{JSON.stringify(act.subject)}</code>],
          ["From", act.address],
          ["Request", act.request_id && <code>{act.request_id}</code>],
          ["Answer", <Answer status={act.status} />],
        ]}
      />
      <div class="actions">
        <Button onClick={close}>Close</Button>
      </div>
    </Dialog>
  );
}

function sentence(rows: Act[], more: boolean): string {
  const [last] = rows;
  if (!last) return "Nothing is recorded.";
  const refused = rows.filter((one) => (one.status ?? 0) >= 400).length;
  const who = new Set(rows.map((one) => one.actor)).size;
  const counted = more ? `The last ${number(rows.length)} acts,` : plural(rows.length, "act");
  return `${counted} of ${plural(who, "operator")}${refused ? `; ${number(refused)} of them failed or ${refused === 1 ? "was" : "were"} refused` : ""}.`;
}
