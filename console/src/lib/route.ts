/** The place in the console as a URL: `#/runs?status=error`. Every view is one, and works under any mount prefix. */
import { computed, signal } from "@preact/signals";

export type Query = Record<string, string>;

export interface Place {
  /** Decoded segments of the path. */
  path: string[];
  query: Query;
}

function read(): Place {
  const [path = "", search = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const decode = (text: string) => {
    try {
      return decodeURIComponent(text);
    } catch {
      return text; // a link that somebody cut short
    }
  };
  return { path: path.split("/").filter(Boolean).map(decode), query: Object.fromEntries(new URLSearchParams(search)) };
}

export const place = signal<Place>(read());
/** The first segment: which page. */
export const pageName = computed(() => place.value.path[0] ?? "overview");

addEventListener("hashchange", () => {
  place.value = read();
});

/** Return the link to a place; empty values of *query* are left out. */
export function link(path: string[], query: Record<string, string | undefined> = {}): string {
  const given = Object.entries(query).filter((entry): entry is [string, string] => Boolean(entry[1]));
  const search = new URLSearchParams(given).toString();
  return `#/${path.map(encodeURIComponent).join("/")}${search ? `?${search}` : ""}`;
}

export function go(path: string[], query: Record<string, string | undefined> = {}): void {
  location.hash = link(path, query);
}

/** Change the query of this place; `replace` keeps the history as it is, for what is typed letter by letter. */
export function setQuery(changes: Record<string, string | undefined>, { replace = false } = {}): void {
  const { path, query } = place.value;
  const next = link(path, { ...query, ...changes });
  if (!replace) {
    location.hash = next;
    return;
  }
  history.replaceState(null, "", next);
  place.value = read();
}
