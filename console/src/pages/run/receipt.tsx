/** The receipt of a cancel: who asked for it, and how far it has come. */
import { between, duration, moment } from "../../lib/format";
import { visibleText } from "../../lib/plain";
import type { Receipt, Run } from "./data";

export function CancelReceipt({ run }: { run: Run }) {
  const receipt = run.cancel;
  if (!receipt) return null;
  return (
    <section class="receipt" aria-label="Receipt of the cancel">
      <strong>{receipt.action === "rollback" ? "Cancelled, to be rolled back" : "Cancelled"}</strong>
      {receipt.requested_by && (
        <span>
          by <bdi>{visibleText(receipt.requested_by)}</bdi>
        </span>
      )}
      <Stage name="asked" at={receipt.requested_at} since={receipt} />
      <Stage name="its worker knows" at={receipt.observed_at} since={receipt} />
      <Stage name="code stopped" at={receipt.stopped_at} since={receipt} />
      <Stage name="ended" at={run.ended_at} since={receipt} />
      {receipt.blocked_at && (
        <p>
          Its code does not stop. It is at <code>{visibleText(receipt.blocked_at)}</code>
        </p>
      )}
    </section>
  );
}

function Stage({ name, at, since }: { name: string; at: string | null; since: Receipt }) {
  const took = at && between(since.requested_at, at);
  return (
    <span class={at ? "stage" : "stage stage-waits"} title={at ? moment(at) : "not yet"}>
      <span aria-hidden="true">{at ? "✓" : "○"}</span> {name}
      {took ? ` +${duration(took)}` : at ? "" : <span class="hidden"> not yet</span>}
    </span>
  );
}
