/** What the page reads of a run. */
import { useRef } from "preact/hooks";
import { get, path, send } from "../../lib/api";
import { type Live, useLive } from "../../lib/live";
import { type RunSummary, isRecorded, withoutPayload } from "../../lib/runs";

export interface Receipt {
  action: "interrupt" | "rollback";
  reason: string;
  requested_by: string | null;
  source: string | null;
  requested_at: string;
  observed_at: string | null;
  stopped_at: string | null;
  blocked_at: string | null;
}

export interface Usage {
  input_tokens: number;
  output_tokens: number;
  total_tokens: number;
  cached_input_tokens: number;
  llm_calls: number;
  message_count: number;
  by_model: Record<string, { input_tokens: number; output_tokens: number; total_tokens: number; cached_input_tokens: number; llm_calls: number }>;
}

/** What `GET /runs/{run_id}` answers. */
export interface Run {
  run_id: string;
  thread_id: string;
  assistant_id: string | null;
  metadata: Record<string, unknown>;
  status: RunSummary["status"];
  kwargs: { input: unknown; command: Record<string, unknown> | null; config: Record<string, any>; stream_mode: string[] | null; durability: string; webhook: string | null };
  multitask_strategy: string;
  created_at: string;
  started_at: string | null;
  ended_at: string | null;
  end_reason: string | null;
  error: { error: string; message?: string | null } | null;
  attempt: number;
  model_name: string | null;
  cancel: Receipt | null;
  usage: Usage;
  /** By the prices that hold now; null, and by model nothing, without one. */
  cost: number | null;
  cost_by_model: Record<string, number>;
}

export interface Step {
  kind: string;
  at: string;
  sentence: string;
  attempt: number | null;
  worker_id: string | null;
  build: string | null;
  checkpoint_id: string | null;
  run_id: string | null;
  reason: string | null;
  handed_back: string | null;
}

export interface Remedy {
  does: string;
  method: string;
  path: string;
}

/** What `GET /runs/{run_id}/explain` answers. */
export interface Explanation {
  owner: string;
  as_of: string;
  sentence: string;
  error: string | null;
  steps: Step[];
  remedies: Remedy[];
}

export interface Known {
  run: Run;
  why: Explanation;
  /** How far the ledger's clock is ahead of this one. */
  aheadMs: number;
}

/** Changes are told; this is for what is not one, such as a worker that goes silent. */
const ACTIVE_MS = 5_000;

/**
 * Return a run with its explanation, which is read again as long as *active*.
 *
 * Its payload is read at first and whenever its status is another one: each read of it is an entry of the audit.
 */
export function useRun(runId: string, active: boolean): Live<Known> {
  const whole = useRef<Run | null>(null);
  return useLive(
    async (stop) => {
      const headers = withoutPayload();
      const [run, why] = await Promise.all([
        send<Run>("GET", path("/runs/{}", runId), { headers, signal: stop }),
        send<Explanation>("GET", path("/runs/{}/explain", runId), { headers, signal: stop }),
      ]);
      const aheadMs = Date.parse(why.as_of) - Date.now();
      if (!isRecorded()) return { run, why, aheadMs };
      if (whole.current?.status !== run.status) whole.current = await get<Run>(path("/runs/{}", runId), {}, stop);
      const { kwargs, error, metadata } = whole.current;
      return { run: { ...run, kwargs, error, metadata }, why, aheadMs };
    },
    [runId],
    active ? ACTIVE_MS : null,
  );
}

/** Return the graph's name; it is hidden with the configuration from those who may not see payload. */
export function graphOf(run: Run): string | undefined {
  return (run.metadata["graph_id"] as string | undefined) ?? run.kwargs.config?.["configurable"]?.["graph_id"];
}

/** Return the build that executes the run, or did last. */
export const buildOf = (why: Explanation): string | null => why.steps.findLast((step) => step.build)?.build ?? null;
