/** The events of a run, as they come. */
import { type Signal, signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { type Conversation, begin, fold } from "../../lib/chat";
import { type Item, follow } from "../../lib/stream";
import type { Run } from "./data";

export class RunLog {
  readonly conversation: Signal<Conversation>;

  constructor(readonly runId: string, input: unknown) {
    this.conversation = signal(begin(input));
  }

  take(items: Item[]): void {
    this.conversation.value = items.reduce(fold, this.conversation.value);
  }
}

/** Return the log of *run*, which follows it while the page is shown. */
export function useLog(run: Run): RunLog {
  const log = useMemo(() => new RunLog(run.run_id, run.kwargs.input), [run.run_id]);
  useEffect(() => follow(run.run_id, (items) => log.take(items)), [log]);
  return log;
}
