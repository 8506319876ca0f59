/** Requests and values as text that a shell or Python reads. Pure, but for where the server is. */
import { ROOT } from "./api";
import { credential } from "./session";

/** Return *text* as one word of a shell. */
export const shell = (text: string): string => (/^[\w.:@/-]+$/.test(text) ? text : `'${text.replace(/'/g, `'\\''`)}'`);

/** Return a value of JSON as Python writes it. */
export function python(value: unknown): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const entries = Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${python(one)}`);
  return `{${entries.join(", ")}}`;
}

const KEY = { key: "X-Api-Key: $RUNLANE_API_KEY", bearer: "Authorization: Bearer $RUNLANE_TOKEN" };

/** Return a request such as `POST /runs/search {"limit": 1}` as a line of curl, without the key that is used here. */
export function curl(http: string): string {
  const [, method = "GET", route = "/", body] = /^(\S+) (\S+)(?: (.*))?$/s.exec(http) ?? [];
  const parts = ["curl", ...(method === "GET" ? [] : ["-X", method]), shell(new URL(route.slice(1), ROOT).href)];
  if (credential.value) parts.push("-H", `"${KEY[credential.value.kind]}"`);
  if (method === "POST" || body) parts.push("-H", "'Content-Type: application/json'", "-d", shell(body ?? "{}"));
  return parts.join(" ");
}
