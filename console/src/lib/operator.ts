/** What the server tells operators. Source: docs/reference/http-api.md, Operators. */
import { me } from "./session";

export interface Endings {
  status: string;
  end_reason: string;
  runs: number;
}

export interface Minute {
  at: string;
  started: number;
  ended: Endings[];
  tokens: number;
  p50_s: number | null;
  p95_s: number | null;
}

export interface WaitingRun {
  run_id: string;
  thread_id: string;
  graph_id: string;
  since: string;
  age_s: number;
}

/** `GET /operator/overview` */
export interface Overview {
  as_of: string;
  counted_until: string;
  running: number;
  slots: number;
  workers: number;
  draining: number;
  running_by: { graph_id: string; worker_id: string; runs: number; oldest_at: string }[];
  waiting: number;
  oldest_waiting: WaitingRun | null;
  queue: { graph_id: string; runs: number; oldest_at: string }[];
  /** Owners with the most waiting runs first. */
  queue_by_owner: { owner: string; runs: number }[];
  minutes: Minute[];
  endings: Endings[];
  p50_s: number | null;
  p95_s: number | null;
  attention: {
    late_crons: number;
    oldest_late_cron_at: string | null;
    retried_webhooks: number;
    failed_webhooks: number;
    failed_threads: number;
    interrupted_threads: number;
  };
}

export interface FailureGroup {
  group_id: string;
  graph_id: string;
  error: string;
  /** `null` for who may not see payload. */
  message: string | null;
  runs: number;
  threads: number;
  threads_estimated: boolean;
  first_at: string;
  last_at: string;
  first_build: string;
  last_build: string;
  run_id: string;
  thread_id: string;
  trend: { at: string; runs: number }[];
}

export interface Worker {
  worker_id: string;
  build: string;
  running: number;
  capacity: number;
  state: "ready" | "draining" | "silent";
  started_at: string;
  graphs: string[] | null;
  revision: string | null;
  runs: string[];
  host: string | null;
  pid: number | null;
  version: string | null;
  renewed_at: string;
  renewed_s: number;
  lag_s: number | null;
  draining_since: string | null;
  drain_asked_at: string | null;
}

export interface Build {
  build: string;
  workers: number;
  running: number;
  parked_threads: number;
}

/** `GET /operator/workers` */
export interface Workers {
  as_of: string;
  here: string;
  workers: Worker[];
  builds: Build[];
  stranded: { graph_id: string; build: string | null; threads: number; oldest_at: string }[];
}

/** Sums of runs; of tokens only, `runs` and times are `null`. */
export interface Amounts {
  runs: number | null;
  failed: number | null;
  executing_s: number | null;
  queued_s: number | null;
  input_tokens: number;
  output_tokens: number;
  total_tokens: number;
  cost: number | null;
}

/** A row of `GET /operator/totals` */
export interface Total extends Amounts {
  name: string;
  first_ended_at: string | null;
  last_ended_at: string | null;
  days: Record<string, Amounts>;
}

/** Where counting ends on the server. */
export const MOST = 10_000;

/** Whether this is somebody who sees the things of all owners. */
export const operates = (): boolean => me.value?.operator ?? true;
