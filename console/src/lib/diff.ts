/** What differs between two values, and where a text occurs in one: as lists of paths. Pure. */

export interface Difference {
  path: string;
  kind: "added" | "removed" | "changed";
  before?: unknown;
  after?: unknown;
}

export interface Place {
  path: string;
  value: unknown;
}

/** Return where *after* differs from *before*, at most *limit* places. Things with ids are told by them, not by their order. */
export function differences(before: unknown, after: unknown, limit: number): Difference[] {
  const found: Difference[] = [];
  const compare = (one: unknown, other: unknown, path: string): void => {
    if (found.length >= limit || one === other) return;
    const left = entriesOf(one);
    const right = entriesOf(other);
    if (!left || !right || Array.isArray(one) !== Array.isArray(other)) {
      found.push({ path, kind: "changed", before: one, after: other });
      return;
    }
    for (const [key, value] of left) {
      if (found.length >= limit) return;
      if (right.has(key)) compare(value, right.get(key), joined(path, key));
      else found.push({ path: joined(path, key), kind: "removed", before: value });
    }
    for (const [key, value] of right) {
      if (!left.has(key) && found.length < limit) found.push({ path: joined(path, key), kind: "added", after: value });
    }
  };
  compare(before, after, "");
  return found;
}

/** Return the leaves of *value* whose path or text has *text*, at most *limit*. */
export function occurrences(value: unknown, text: string, limit: number): Place[] {
  const wanted = text.toLowerCase();
  const found: Place[] = [];
  const look = (one: unknown, path: string): void => {
    if (found.length >= limit) return;
    const entries = entriesOf(one);
    if (entries?.size) for (const [key, inner] of entries) look(inner, joined(path, key));
    else if (`${path} ${typeof one === "string" ? one : JSON.stringify(one)}`.toLowerCase().includes(wanted)) found.push({ path, value: one });
  };
  look(value, "");
  return found;
}

function entriesOf(value: unknown): Map<string, unknown> | null {
  if (value === null || typeof value !== "object") return null;
  if (!Array.isArray(value)) return new Map(Object.entries(value));
  const ids = value.map((one) => (one && typeof one === "object" && typeof one.id === "string" ? (one.id as string) : undefined));
  const told = ids.every((id) => id !== undefined) && new Set(ids).size === ids.length;
  return new Map(value.map((one, at): [string, unknown] => [told ? ids[at]! : String(at), one]));
}

const joined = (path: string, key: string): string => (path ? `${path}.${key}` : key);
