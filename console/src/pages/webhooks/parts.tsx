import { path, post } from "../../lib/api";
import { permits } from "../../lib/session";
import { AsCode, Button } from "../../lib/ui";

export interface Attempt {
  number: number;
  sent_at: string;
  duration_s: number;
  status_code: number | null;
  error: string | null;
}

export interface Delivery {
  run_id: string;
  thread_id: string;
  /** Payload. */
  url?: string;
  status: "pending" | "delivered" | "failed";
  attempts: number;
  next_attempt_at: string | null;
  created_at: string;
  ended_at: string | null;
  history?: Attempt[];
}

const STATES = { pending: ["status-pending", "○"], delivered: ["status-success", "●"], failed: ["status-error", "▲"] } as const;

export function DeliveryState({ delivery }: { delivery: Delivery }) {
  const tried = delivery.status === "pending" && delivery.attempts > 0;
  const [name, shape] = tried ? ["status-interrupted", "◷"] : STATES[delivery.status];
  return (
    <span class={`status ${name}`}>
      <span class="shape" aria-hidden="true">
        {shape}
      </span>
      {tried ? "tried again" : delivery.status}
    </span>
  );
}

export function Resend({ run, done, code = false }: { run: string; done: () => void; code?: boolean }) {
  const route = path("/webhooks/{}/resend", run);
  if (!permits("threads.retry")) return null;
  const resend = async () => {
    await post(route);
    done();
  };
  return (
    <>
      <Button onClick={resend}>Redeliver</Button>
      {code && <AsCode http={`POST ${route}`} cli={`runlane webhooks resend ${run}`} python={`await client.http.post("${route}", json={})`} />}
    </>
  );
}
