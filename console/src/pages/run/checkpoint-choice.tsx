/** A choice among the thread's newest checkpoints. */
import { clock, nodesOf, shortId } from "../../lib/format";
import { type Live, useLive } from "../../lib/live";
import { isActive } from "../../lib/runs";
import type { Run } from "./data";
import { type Checkpoint, checkpointsOf } from "./steps";

const OFFERED = 100;
const ACTIVE_MS = 3_000;

export function useHistory(run: Run): Live<Checkpoint[]> {
  const load = (stop: AbortSignal) => checkpointsOf(run.thread_id, { limit: OFFERED }, stop);
  return useLive(load, [run.thread_id, run.status], isActive(run) ? ACTIVE_MS : null);
}

interface ChoiceProps {
  label: string;
  history: Checkpoint[] | undefined;
  value: string | undefined;
  /** What it is without one. */
  none: string;
  choose: (id: string | undefined) => void;
}

export function CheckpointChoice({ label, history = [], value, none, choose }: ChoiceProps) {
  const all = value && !history.some((one) => one.checkpoint_id === value) ? [value] : [];
  return (
    <label>
      {label}
      <select value={value ?? ""} onChange={(event) => choose(event.currentTarget.value || undefined)}>
        <option value="">{none}</option>
        {all.map((id) => (
          <option key={id} value={id}>
            checkpoint {shortId(id)}
          </option>
        ))}
        {history.map((one) => (
          <option key={one.checkpoint_id} value={one.checkpoint_id}>
            {nameOf(one)}
          </option>
        ))}
      </select>
    </label>
  );
}

/** Return what a checkpoint is called: its step, and what comes next. */
export function nameOf({ metadata, next, created_at }: Checkpoint): string {
  const step = metadata?.step === undefined ? "checkpoint" : `step ${metadata.step}`;
  const then = next.length ? `, then ${nodesOf(next)}` : ", the end";
  return `${step}${then}${created_at ? ` · ${clock(created_at)}` : ""}`;
}
