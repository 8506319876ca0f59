/** Data that stays fresh while somebody looks: nothing is requested while the tab is hidden. */
import { signal } from "@preact/signals";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "./api";

export const visible = signal(!document.hidden);
document.addEventListener("visibilitychange", () => {
  visible.value = !document.hidden;
});

export type Freshness = "loading" | "live" | "paused" | "stale" | "still";

export interface Live<T> {
  data: T | undefined;
  error: ApiError | undefined;
  /** When `data` was read, in milliseconds since 1970. */
  asOf: number | undefined;
  freshness: Freshness;
  /** Read again now. */
  reload: () => void;
}

const RETRY_MS = 3_000;

/**
 * Read with *load* at once, whenever *deps* change, and each *everyMs* while the tab is visible.
 *
 * `everyMs` of `null`: once, for what does not change. Without *load* nothing is read.
 */
export function useLive<T>(load: ((stop: AbortSignal) => Promise<T>) | undefined, deps: unknown[], everyMs: number | null): Live<T> {
  const [state, set] = useState<{ data?: T; error?: ApiError; asOf?: number }>({});
  const [turn, setTurn] = useState(0);
  const shown = visible.value;
  const loading = useRef(load);
  loading.current = load;
  const wake = useRef(() => {});
  const key = JSON.stringify(deps);
  const lastKey = useRef(key);

  useEffect(() => {
    if (lastKey.current !== key) {
      lastKey.current = key;
      set({});
    }
    if (!shown || !loading.current) return;
    const stop = new AbortController();
    let timer = 0;
    let reading = false;
    let asked = false;
    const again = async (): Promise<void> => {
      clearTimeout(timer);
      asked = reading;
      if (reading) return;
      reading = true;
      let wait = everyMs;
      try {
        const data = await loading.current!(stop.signal);
        if (!stop.signal.aborted) set({ data, asOf: Date.now() });
      } catch (error) {
        if (stop.signal.aborted) return;
        const refused = error instanceof ApiError ? error : new ApiError(-1, "defect", String(error));
        set((was) => ({ ...was, error: refused }));
        wait = refused.passing ? RETRY_MS : null;
      }
      reading = false;
      if (stop.signal.aborted) return;
      if (asked) return again(); // what was read may be older than what it was asked for
      if (wait !== null) timer = setTimeout(again, wait);
    };
    wake.current = () => void again();
    void again();
    return () => {
      wake.current = () => {};
      stop.abort();
      clearTimeout(timer);
    };
  }, [key, shown, everyMs]);
  useEffect(() => {
    if (turn) wake.current();
  }, [turn]);

  const reload = useCallback(() => setTurn((was) => was + 1), []);
  return { data: state.data, error: state.error, asOf: state.asOf, freshness: freshnessOf(state, shown, everyMs), reload };
}

function freshnessOf(state: { data?: unknown; error?: ApiError }, shown: boolean, everyMs: number | null): Freshness {
  if (state.error) return "stale";
  if (state.data === undefined) return "loading";
  if (everyMs === null) return "still";
  return shown ? "live" : "paused";
}

/** Return *live* with what was read before while the next version of the same thing is read. */
export function useKept<T>(live: Live<T>): Live<T> {
  const kept = useRef<T | undefined>(undefined);
  kept.current = live.data ?? kept.current;
  return { ...live, data: kept.current };
}

/** Milliseconds since 1970, again each *everyMs* while the tab is visible: for ages. */
export function useNow(everyMs = 1_000): number {
  const [now, set] = useState(Date.now());
  const shown = visible.value;
  useEffect(() => {
    if (!shown) return;
    set(Date.now());
    const timer = setInterval(() => set(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [shown, everyMs]);
  return now;
}
