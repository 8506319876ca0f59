/** When the run's supersteps were: its checkpoints, each of which says what was to run next. */
import { useRef } from "preact/hooks";
import { path, send } from "../../lib/api";
import { type Live, useLive } from "../../lib/live";
import { withoutPayload } from "../../lib/runs";
import type { Run } from "./data";

export interface Checkpoint {
  checkpoint_id: string;
  parent_checkpoint_id: string | null;
  created_at: string | null;
  next: string[];
  /** Hidden from those who may not see payload, but for ids. */
  metadata: { source?: string; step?: number; run_id?: string; run_attempt?: number } | null;
}

export interface Superstep {
  nodes: string[];
  from: string;
  /** `null`: it still runs. */
  to: string | null;
  step: number | undefined;
  checkpointId: string;
}

export const MOST_STEPS = 300;
const FIELDS = ["checkpoint_id", "parent_checkpoint_id", "created_at", "next", "metadata"];
const ACTIVE_MS = 2_000;

/** Return checkpoints of a thread, the newest first; with *run_id* those that a run has written. */
export function checkpointsOf(threadId: string, { limit, run_id }: { limit: number; run_id?: string }, stop: AbortSignal): Promise<Checkpoint[]> {
  const body = { limit, select: FIELDS, ...(run_id && { metadata: { run_id } }) };
  return send("POST", path("/threads/{}/history", threadId), { body, signal: stop, headers: withoutPayload() });
}

/** Checkpoints that are read again and again while the run goes on. */
const FEW = 20;

export function useSupersteps(run: Run, active: boolean): Live<Superstep[]> {
  const known = useRef<Checkpoint[]>([]);
  return useLive(
    async (stop) => {
      const read = (limit: number) => checkpointsOf(run.thread_id, { limit, run_id: run.run_id }, stop);
      const newest = await read(FEW);
      const at = newest.findIndex((one) => one.checkpoint_id === known.current[0]?.checkpoint_id);
      if (at >= 0) known.current = [...newest.slice(0, at), ...known.current].slice(0, MOST_STEPS);
      else known.current = newest.length < FEW ? newest : await read(MOST_STEPS);
      return superstepsOf(known.current, run);
    },
    [run.run_id, run.status],
    active ? ACTIVE_MS : null,
  );
}

export function superstepsOf(newestFirst: Checkpoint[], run: Pick<Run, "ended_at">): Superstep[] {
  const oldestFirst = newestFirst.filter((one) => one.created_at).reverse();
  return oldestFirst
    .map((one, at) => ({
      nodes: [...new Set(one.next)],
      from: one.created_at!,
      to: oldestFirst[at + 1]?.created_at ?? run.ended_at,
      step: one.metadata?.step === undefined ? undefined : one.metadata.step + 1,
      checkpointId: one.checkpoint_id,
    }))
    .filter((step) => step.nodes.length && step.nodes[0] !== "__start__");
}
