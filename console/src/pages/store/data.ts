/** What the page reads of the store, and writes. */
import { get, post, request, send } from "../../lib/api";
import { checkObject } from "../../lib/filter";
import type { Query } from "../../lib/route";

export interface Item {
  namespace: string[];
  key: string;
  value: Record<string, unknown>;
  created_at: string;
  updated_at: string;
  score?: number | null;
}

export interface Shelf {
  /** Labels that come after the namespace. */
  below: string[];
  items: Item[];
  more: boolean;
  /** What the server did not do of what was asked. */
  ignored: string | null;
}

const MOST_BELOW = 500;
export const FIELDS = [
  { name: "query", hint: "find by meaning, if the store has an index" },
  { name: "filter", hint: 'the value has these fields: {"rain":true}', check: checkObject },
];

export function searchOf(namespace: string[], query: Query, limit: number): Record<string, unknown> {
  return {
    namespace_prefix: namespace,
    ...(query["query"] && { query: query["query"] }),
    ...(query["filter"] && { filter: JSON.parse(query["filter"]) }),
    limit,
    refresh_ttl: false, // who only looks keeps nothing alive
  };
}

export async function readShelf(namespace: string[], query: Query, limit: number, stop: AbortSignal): Promise<Shelf> {
  const depth = namespace.length + 1;
  const [names, answer] = await Promise.all([
    post<{ namespaces: string[][] }>("/store/namespaces", { prefix: namespace, max_depth: depth, limit: MOST_BELOW }, stop),
    request("POST", "/store/items/search", { body: searchOf(namespace, query, limit + 1), signal: stop }),
  ]);
  const { items } = (await answer.json()) as { items: Item[] };
  const below = names.namespaces.map((labels) => labels[depth - 1]).filter((label) => label !== undefined);
  return {
    below: [...new Set(below)].sort(),
    items: items.slice(0, limit),
    more: items.length > limit,
    ignored: answer.headers.get("Runlane-Ignored"),
  };
}

const readItem = (namespace: string[], key: string) =>
  get<Item | null>("/store/items", { namespace: namespace.join("."), key, refresh_ttl: false });

/** Write an item, unless it is another one by now than *seen*. */
export async function writeItem(namespace: string[], key: string, value: unknown, seen: Item | undefined): Promise<void> {
  const now = await readItem(namespace, key);
  if (seen && now?.updated_at !== seen.updated_at) {
    throw new Error(now ? "It was changed meanwhile. Close this, look at what it is now, and edit that." : "It was deleted meanwhile.");
  }
  if (!seen && now) throw new Error("There is an item with this key. Open it to change it.");
  await send("PUT", "/store/items", { body: { namespace, key, value } });
}

export const deleteItem = (item: Item) => send("DELETE", "/store/items", { body: { namespace: item.namespace, key: item.key } });
