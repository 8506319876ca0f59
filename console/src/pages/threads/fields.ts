/** The words of the filter of threads, and what they ask `POST /threads/search` for. */
import { type Field, checkObject } from "../../lib/filter";
import type { Query } from "../../lib/route";
import type { ThreadSummary } from "../../lib/threads";

const SORTS: Record<string, string> = { changed: "updated_at", created: "created_at" };
/** Names in the URL of the page that are no filters. */
export const OTHERS = ["before"];

export function threadFields(threads: readonly ThreadSummary[]): Field[] {
  const seen = (name: string) => [...new Set(threads.map((thread) => thread.metadata[name]).filter((one) => typeof one === "string"))] as string[];
  return [
    { name: "status", hint: "whether something runs, failed, or waits for a person", values: ["idle", "busy", "interrupted", "error"], closed: true },
    { name: "graph", hint: "the graph that ran last", values: seen("graph_id") },
    { name: "assistant", hint: "id of the assistant that ran last", values: seen("assistant_id") },
    { name: "thread", hint: "ids, with commas", many: true },
    { name: "owner", hint: "whose it is", values: [...new Set(threads.flatMap((thread) => thread.owner || []))] },
    { name: "metadata", hint: 'has this: {"team":"billing"}', check: checkObject },
    { name: "sort", hint: "what is newest first", values: Object.keys(SORTS), closed: true },
  ];
}

export function threadFilter(query: Query): Record<string, unknown> {
  const metadata = {
    ...(query["metadata"] && JSON.parse(query["metadata"])),
    ...(query["graph"] && { graph_id: query["graph"] }),
    ...(query["assistant"] && { assistant_id: query["assistant"] }),
  };
  return {
    ...(query["status"] && { status: query["status"] }),
    ...(query["owner"] !== undefined && { owner: query["owner"] }),
    ...(query["thread"] && { ids: query["thread"].split(",") }),
    ...(Object.keys(metadata).length && { metadata }),
    sort_by: SORTS[query["sort"] ?? "changed"],
    sort_order: "desc",
  };
}
