/** Runs as `POST /runs/search` answers them, and what is said of them. */
import { between, duration, shortId } from "./format";
import { me } from "./session";

export interface RunSummary {
  run_id: string;
  thread_id: string;
  owner: string;
  assistant_id: string | null;
  graph_id: string | null;
  build?: string | null;
  status: "pending" | "running" | "success" | "error" | "timeout" | "interrupted";
  end_reason: string | null;
  error: { error: string; message: string | null } | null;
  attempt: number;
  rescues: number;
  worker_id: string | null;
  metadata: Record<string, unknown>;
  model_name: string | null;
  usage: { total_tokens: number; llm_calls: number; first_human_message: string | null };
  /** By the prices that hold now; null without one. */
  cost: number | null;
  cancel: { action: string; requested_by: string | null } | null;
  waiting_on: { reason: string; run_id?: string; until?: string } | null;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
}

export const isActive = (run: Pick<RunSummary, "status">): boolean => run.status === "pending" || run.status === "running";
/** The status, where a run that waits for a person is told from one that was cancelled. */
export const shownStatus = (run: Pick<RunSummary, "status" | "end_reason">): string => (run.end_reason === "paused" ? "paused" : run.status);

/** Return why a run is as it is, in few words. */
export function causeOf(run: RunSummary): string {
  if (run.error) return run.error.message ? `${run.error.error}: ${run.error.message}` : run.error.error;
  if (run.cancel && isActive(run)) return `${run.cancel.action === "rollback" ? "roll back" : "cancel"} asked for`;
  if (run.waiting_on) return waitOf(run.waiting_on);
  if (run.status === "running") return run.attempt > 1 ? `attempt ${run.attempt}` : "";
  if (run.end_reason === "paused") return "waits for an answer";
  return run.end_reason && run.end_reason !== "completed" ? run.end_reason.replace(/_/g, " ") : "";
}

function waitOf(waiting: NonNullable<RunSummary["waiting_on"]>): string {
  if (waiting.run_id) return `waits for run ${shortId(waiting.run_id)}`;
  return waiting.reason === "delay" ? "waits for its time" : "waits for a slot";
}

/** What holds a run that waits for a slot, as far as lists know it; its page says which of them. */
export const SLOT = "of a worker that has its graph, within the limits of its owner, assistant and graph";

/** Return how long a run waited, and how long it was executed. */
export function timesOf(run: RunSummary, now: number): { queue: string; run: string } {
  return {
    queue: run.started_at || isActive(run) ? duration(between(run.created_at, run.started_at, now)) : "",
    run: run.started_at ? duration(between(run.started_at, run.ended_at, now)) : "",
  };
}

/** Whether reads of this user that show payload go to the audit, so that lists are read without it. */
export const isRecorded = (): boolean => Boolean(me.value?.operator && me.value.identity);
/** Headers of a list that is read again and again. */
export const withoutPayload = (): Record<string, string> => (isRecorded() ? { "Runlane-Payload": "omit" } : {});
