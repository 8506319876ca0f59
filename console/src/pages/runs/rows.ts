/** The rows of the page: a window of runs from the newest on, or before a place, that is read again and again. */
import { useEffect, useRef, useState } from "preact/hooks";
import { page } from "../../lib/api";
import { type RunSummary, withoutPayload } from "../../lib/runs";

export interface Rows {
  runs: RunSummary[];
  /** Where older ones begin that have not been compared. */
  next: string | null;
}

export interface Wanted {
  filter: Record<string, unknown>;
  before: string | undefined;
  rows: number;
  /** The server compares a bounded number of runs per request, so that rare ones take several. */
  requests: number;
  payload: boolean;
}

export async function readRows({ filter, before, rows, requests, payload }: Wanted, stop: AbortSignal): Promise<Rows> {
  const found: RunSummary[] = [];
  let next: string | null = before ?? null;
  for (let done = 0; done < requests && found.length < rows; done++) {
    const body = { ...filter, limit: rows - found.length, ...(next && { after: next }) };
    const headers = payload ? {} : withoutPayload();
    const one = await page<RunSummary>("POST", "/runs/search", { body, signal: stop, headers });
    found.push(...one.items);
    next = one.next;
    if (next === null) break;
  }
  return { runs: found, next };
}

const SCROLLED_PX = 160;

/** Hold rows that are new while one has scrolled, so that what is read does not move. */
export function useHeld(runs: readonly RunSummary[]): { shown: readonly RunSummary[]; held: number; release: () => void } {
  const [top, setTop] = useState<string>();
  const newest = useRef<string | undefined>(undefined);
  const last = useRef<readonly RunSummary[]>([]);
  const at = top === undefined ? 0 : runs.findIndex((run) => run.run_id === top);
  const shown = at < 0 ? last.current : runs.slice(at);
  last.current = shown;
  newest.current = shown[0]?.run_id;
  useEffect(() => {
    const scrolled = () => setTop((was) => (scrollY > SCROLLED_PX ? (was ?? newest.current) : undefined));
    addEventListener("scroll", scrolled, { passive: true });
    return () => removeEventListener("scroll", scrolled);
  }, []);
  return { shown, held: at < 0 ? runs.length : at, release: () => scrollTo({ top: 0 }) };
}
