/** The log of the run that the page shows, and the moment of it that is looked at. */
import { type ReadonlySignal, useComputed } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import type { Conversation } from "../../lib/chat";
import { place } from "../../lib/route";
import { follow } from "../../lib/stream";
import type { Run } from "./data";
import { RunLog } from "./log";

/** Return the log of *run*, which follows it while the page is shown; it begins at the moment that the URL names. */
export function useLog(run: Run): RunLog {
  const log = useMemo(() => new RunLog(run.run_id, run.kwargs.input), [run.run_id]);
  const { at } = place.value.query;
  useEffect(() => {
    log.moment.value = at && /^\d{1,9}$/.test(at) ? Number(at) : null;
  }, [log, at]);
  useEffect(() => follow(run.run_id, (items) => log.take(items)), [log]);
  return log;
}

/** Return what was said by the moment that is looked at. */
export function useSaid(log: RunLog): ReadonlySignal<Conversation> {
  return useComputed(() => {
    const { value } = log.moment;
    log.version.value;
    return value === null ? log.newest.value : log.saidBy(value);
  });
}
