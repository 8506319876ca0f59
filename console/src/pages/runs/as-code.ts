/** The list as an HTTP call, a command and Python. */
import { python, shell } from "../../lib/code";
import type { Query } from "../../lib/route";
import { runFilter } from "./fields";

/** Words that the command has as options of another name, or of the same. */
const OPTIONS: Record<string, string> = {
  status: "--status",
  graph: "--graph",
  assistant: "--assistant",
  thread: "--thread",
  owner: "--owner",
  since: "--since",
  until: "--until",
  text: "--text",
};

export function listAsCode(query: Query): { http: string; cli?: string; python: string } {
  const body = runFilter(query, Date.now());
  return {
    http: `POST /runs/search ${JSON.stringify(body)}`,
    cli: `runlane runs ls${options(query)}`,
    python: `await client.http.post("/runs/search", json=${python(body)})`,
  };
}

function options(query: Query): string {
  let found = "";
  for (const [name, value] of Object.entries(query)) {
    const age = name === "age" ? ` ${value.startsWith("<") ? "--since" : "--until"} ${value.slice(1)}` : "";
    const option = OPTIONS[name];
    const values = name === "status" ? value.split(",") : [value];
    found += age || (option ? values.map((one) => ` ${option} ${shell(one)}`).join("") : "");
  }
  return found;
}
