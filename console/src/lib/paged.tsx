/** A list whose first page is live, and whose next pages are read when somebody asks for more. */
import { useEffect, useState } from "preact/hooks";
import type { Page } from "./api";
import { type Live, useLive } from "./live";
import { Button } from "./ui";

export interface Paged<T> {
  live: Live<Page<T>>;
  /** All that was read: the newest first page, and older ones behind it. */
  rows: T[];
  /** Read the next page; `undefined` if there is none. */
  more?: () => Promise<void>;
}

/**
 * Read pages with *load*, which gets where a page begins; `undefined`: the first one.
 *
 * Once there are more pages, the first one is read no more, so that no row is missed or shown twice.
 */
export function usePaged<T>(load: (after: string | undefined, stop?: AbortSignal) => Promise<Page<T>>, deps: unknown[], everyMs: number): Paged<T> {
  const [older, setOlder] = useState<Page<T>>();
  const key = JSON.stringify(deps);
  useEffect(() => setOlder(undefined), [key]);
  const live = useLive((stop) => load(undefined, stop), deps, older ? null : everyMs);
  const [kept, setKept] = useState<Page<T>>();
  const first = older ? kept : live.data;
  const next = (older ?? first)?.next;
  const more = async () => {
    const page = await load(next!);
    if (!older) setKept(live.data);
    setOlder({ items: [...(older?.items ?? []), ...page.items], next: page.next });
  };
  return { live, rows: [...(first?.items ?? []), ...(older?.items ?? [])], more: next ? more : undefined };
}

export function More({ paged }: { paged: Paged<unknown> }) {
  return paged.more ? (
    <p class="more-rows">
      <Button onClick={paged.more}>More</Button>
    </p>
  ) : null;
}
