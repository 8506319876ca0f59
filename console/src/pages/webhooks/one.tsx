import { get, path, send } from "../../lib/api";
import { duration, moment, plural } from "../../lib/format";
import { useLive } from "../../lib/live";
import { withoutPayload } from "../../lib/runs";
import { link } from "../../lib/route";
import { Table } from "../../lib/table";
import { Age, Chip, Facts, Head, Hidden, Loaded } from "../../lib/ui";
import { type Attempt, type Delivery, DeliveryState, Resend } from "./parts";

const EVERY_MS = 2_000;

/** The delivery of a run's end, attempt by attempt. */
export function OneDelivery({ run }: { run: string }) {
  const route = path("/webhooks/{}", run);
  const live = useLive((stop) => send<Delivery>("GET", route, { headers: withoutPayload(), signal: stop }), [run], EVERY_MS);
  // Payload is read once, since such reads go to the audit.
  const { data: whole } = useLive((stop) => get<Delivery>(route, {}, stop), [run], null);
  return (
    <>
      <Head title="Webhook" live={live} sentence={live.data && sentence(live.data)}>
        <a href={link(["webhooks"])}>All webhooks</a>
        {live.data && <Resend run={run} done={live.reload} code />}
      </Head>
      <Loaded live={live}>
        {(delivery) => (
          <>
            <Facts
              facts={[
                ["Status", <DeliveryState delivery={delivery} />],
                ["To", whole?.url ? <bdi>{whole.url}</bdi> : <Hidden />],
                ["Run", <Chip to={["run", delivery.run_id]} id={delivery.run_id} />],
                ["Thread", <Chip to={["thread", delivery.thread_id]} id={delivery.thread_id} />],
                ["Made", <Age at={delivery.created_at} />],
                ["Next attempt", delivery.next_attempt_at && <Age at={delivery.next_attempt_at} />],
              ]}
            />
            <section class="section" aria-labelledby="attempts">
              <div class="section-head">
                <h2 id="attempts">Attempts</h2>
              </div>
              {delivery.history?.length ? <Attempts history={delivery.history} /> : <p class="quiet">It was not sent yet.</p>}
            </section>
          </>
        )}
      </Loaded>
    </>
  );
}

function Attempts({ history }: { history: Attempt[] }) {
  return (
    <Table
      label="Attempts"
      rows={history}
      id={(attempt) => String(attempt.number)}
      columns={[
        { name: "Attempt", cell: (attempt) => attempt.number },
        { name: "Sent", cell: (attempt) => moment(attempt.sent_at) },
        { name: "Took", cell: (attempt) => duration(attempt.duration_s), end: true },
        { name: "Answer", cell: (attempt) => attempt.status_code ?? "none" },
        { name: "Error", cell: (attempt) => <bdi>{attempt.error ?? ""}</bdi> },
      ]}
    />
  );
}

function sentence(delivery: Delivery): string {
  const last = delivery.history?.at(-1);
  const tries = plural(delivery.attempts, "attempt");
  const answer = last?.status_code ? `the receiver answered ${last.status_code}` : (last?.error ?? "there was no answer");
  if (delivery.status === "delivered") return `Delivered after ${tries}.`;
  if (delivery.status === "failed") return `Given up after ${tries}: ${answer}. Mend the receiver, then redeliver.`;
  return delivery.attempts ? `${tries} failed, since ${answer}; it is tried again.` : "It is about to be sent.";
}
