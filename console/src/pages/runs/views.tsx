/** Filters with a name: those that everybody needs, and saved ones. */
import { link } from "../../lib/route";
import type { Query } from "../../lib/route";

const COMMON: [string, Query][] = [
  ["All", {}],
  ["Active", { status: "pending,running" }],
  ["Failed", { status: "error,timeout" }],
  ["Waits for a person", { cause: "paused" }],
  ["Cancelled", { cause: "user_cancel,rolled_back" }],
];

export function Views({ query }: { query: Query }) {
  const same = (other: Query) => JSON.stringify(Object.entries(query).sort()) === JSON.stringify(Object.entries(other).sort());
  return (
    <nav class="views" aria-label="Views">
      {COMMON.map(([name, one]) => (
        <a key={name} href={link(["runs"], one)} aria-current={same(one) ? "true" : undefined}>
          {name}
        </a>
      ))}
    </nav>
  );
}
