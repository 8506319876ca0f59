/** Which line of a drawing each checkpoint of a history stands on, where it forks. Pure. */
import type { Checkpoint } from "./steps";

export interface Laned {
  /** The line that it stands on. */
  lane: number;
  /** Lines that come from newer ones to it, the first of which is its own. */
  joining: number[];
  /** Lines that go by. */
  passing: number[];
  /** Whether one goes on to what it was made from. */
  goesOn: boolean;
}

export function lanesOf(newestFirst: readonly Checkpoint[]): Laned[] {
  const awaited: (string | null)[] = [];
  return newestFirst.map(({ checkpoint_id, parent_checkpoint_id }) => {
    const joining = awaited.flatMap((id, at) => (id === checkpoint_id ? [at] : []));
    const free = awaited.indexOf(null);
    const lane = joining[0] ?? (free < 0 ? awaited.length : free);
    for (const at of joining) awaited[at] = null;
    const passing = awaited.flatMap((id, at) => (id !== null && id !== undefined ? [at] : []));
    awaited[lane] = parent_checkpoint_id;
    return { lane, joining, passing, goesOn: parent_checkpoint_id !== null };
  });
}
