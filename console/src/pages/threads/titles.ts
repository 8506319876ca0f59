/** Titles of threads that have none in their metadata: how they began. Each thread is asked for once. */
import { useEffect, useRef, useState } from "preact/hooks";
import { page } from "../../lib/api";
import { isRecorded } from "../../lib/runs";
import { seesPayload } from "../../lib/session";
import { type ThreadSummary, titleOf } from "../../lib/threads";

const PER_REQUEST = 50;

export function useTitles(threads: readonly ThreadSummary[]): ReadonlyMap<string, string> {
  const [titles, set] = useState<ReadonlyMap<string, string>>(new Map());
  const asked = useRef(new Set<string>());
  const ids = threads.map((thread) => thread.thread_id).join();
  useEffect(() => {
    if (!seesPayload.value || isRecorded()) return;
    const missing = threads.filter((thread) => !titleOf(thread) && !asked.current.has(thread.thread_id));
    const stop = new AbortController();
    void read(missing.map((thread) => thread.thread_id).slice(0, PER_REQUEST));
    return () => stop.abort();

    async function read(wanted: string[]): Promise<void> {
      if (!wanted.length) return;
      const body = { ids: wanted, limit: wanted.length, select: ["thread_id", "metadata"], extract: { first: "values.messages[0]" } };
      try {
        const found = (await page<ThreadSummary>("POST", "/threads/search", { body, signal: stop.signal })).items;
        for (const id of wanted) asked.current.add(id);
        const named = found.map((thread): [string, string] => [thread.thread_id, titleOf(thread) ?? ""]);
        set((was) => new Map([...was, ...named.filter(([, title]) => title)]));
      } catch {
        // The ids stand in their place; the list itself says that the server does not answer.
      }
    }
  }, [ids]);
  return titles;
}
