/** Deliveries of webhooks: what was sent, what waits, and sending again. */
import { page } from "../lib/api";
import { Choice } from "../lib/fields";
import { number, plural } from "../lib/format";
import { withoutPayload } from "../lib/runs";
import { More, usePaged } from "../lib/paged";
import { link, place } from "../lib/route";
import { type Column, Table } from "../lib/table";
import { Age, Chip, Empty, Head, Loaded } from "../lib/ui";
import { OneDelivery } from "./webhooks/one";
import { type Delivery, DeliveryState, Resend } from "./webhooks/parts";

const EVERY_MS = 3_000;
const ROWS = 50;

export default function Webhooks() {
  const run = place.value.path[1];
  return run ? <OneDelivery run={run} /> : <Deliveries />;
}

function Deliveries() {
  const { status } = place.value.query;
  const load = (after: string | undefined, stop?: AbortSignal) =>
    page<Delivery>("GET", "/webhooks", { query: { delivery_status: status, limit: ROWS, after }, headers: withoutPayload(), signal: stop });
  const paged = usePaged(load, [status], EVERY_MS);
  const { live, rows } = paged;
  return (
    <>
      <Head title="Webhooks" live={live} sentence={live.data && sentence(rows, paged.more !== undefined, status)} />
      <div class="filters">
        <Choice
          name="status"
          label="Status"
          options={[
            ["", "all"],
            ["failed", "failed"],
            ["pending", "pending"],
            ["delivered", "delivered"],
          ]}
        />
      </div>
      <Loaded live={live}>
        {() =>
          rows.length ? (
            <Table
              label="Deliveries"
              rows={rows}
              id={(delivery) => delivery.run_id}
              open={(delivery) => link(["webhooks", delivery.run_id])}
              columns={columnsOf(live.reload)}
            />
          ) : (
            <Empty>
              {status ? `No delivery is ${status}.` : "No run has a webhook yet: give the request of a run a “webhook”, and its end is sent there."}
            </Empty>
          )
        }
      </Loaded>
      <More paged={paged} />
    </>
  );
}

function columnsOf(reload: () => void): Column<Delivery>[] {
  return [
    { name: "Status", cell: (delivery) => <DeliveryState delivery={delivery} /> },
    {
      name: "To",
      cell: (delivery) => (
        <a href={link(["webhooks", delivery.run_id])} title={delivery.url}>
          {delivery.url ? <bdi>{delivery.url}</bdi> : "show"}
        </a>
      ),
    },
    { name: "Attempts", cell: (delivery) => number(delivery.attempts), end: true },
    { name: "Next", cell: (delivery) => delivery.next_attempt_at && <Age at={delivery.next_attempt_at} /> },
    { name: "Run", cell: (delivery) => <Chip to={["run", delivery.run_id]} id={delivery.run_id} /> },
    { name: "Thread", cell: (delivery) => <Chip to={["thread", delivery.thread_id]} id={delivery.thread_id} />, wide: true },
    { name: "Made", cell: (delivery) => <Age at={delivery.created_at} />, wide: true },
    { name: "", cell: (delivery) => delivery.status === "failed" && <Resend run={delivery.run_id} done={reload} /> },
  ];
}

function sentence(rows: Delivery[], more: boolean, status: string | undefined): string {
  const counted = (of: string) => rows.filter((one) => one.status === of).length;
  if (status) return `${more ? "More than " : ""}${plural(rows.length, "delivery is", "deliveries are")} ${status}.`;
  if (!rows.length) return "No webhook was sent.";
  const failing = rows.filter((one) => one.status === "pending" && one.attempts > 0).length;
  const which = more ? `Of the last ${number(rows.length)} deliveries` : `Of ${plural(rows.length, "delivery", "deliveries")}`;
  const parts = [counted("failed") && `${number(counted("failed"))} failed`, failing && `${number(failing)} will be tried again`].filter(Boolean);
  return `${which}, ${parts.length ? parts.join(" and ") : "none failed"}.`;
}
