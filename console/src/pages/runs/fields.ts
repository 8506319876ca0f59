/** The words of the filter of runs, and what they ask `POST /runs/search` for. */
import type { Field } from "../../lib/filter";
import type { Query } from "../../lib/route";
import type { RunSummary } from "../../lib/runs";

const STATUSES = ["pending", "running", "success", "error", "timeout", "interrupted"];
const CAUSES = [
  "completed",
  "paused",
  "user_cancel",
  "superseded",
  "disconnect",
  "rolled_back",
  "deadline",
  "failed",
  "worker_lost",
  "never_started",
  "drained_over",
];
const WAITS: Record<string, string> = { lane: "run", slots: "slots", delay: "delay" };
const UNITS: Record<string, number> = { s: 1, m: 60, min: 60, h: 3_600, d: 86_400 };
const MOST_AGE_S = 36_525 * 86_400;
const AGE = /^([<>])(\d+(?:\.\d+)?)(s|min|m|h|d)$/;
const COST = /^>(\d+(?:\.\d+)?)$/;
const TOKENS = /^>(\d+)(k|M)?$/;

/** Names in the URL of the page that are no filters. */
export const OTHERS = ["before", "payload"];

/** Return the words, with the values of *rows* for completion. */
export function runFields(rows: readonly RunSummary[]): Field[] {
  const seen = (of: (run: RunSummary) => string | null | undefined) => [...new Set(rows.map(of).filter((one) => !!one))] as string[];
  return [
    { name: "status", hint: "where the run is; several with commas", values: STATUSES, closed: true, many: true },
    { name: "cause", hint: "why it ended; several with commas", values: CAUSES, closed: true, many: true },
    { name: "waits", hint: "what a pending run waits for", values: Object.keys(WAITS), closed: true },
    { name: "graph", hint: "name of the graph", values: seen((run) => run.graph_id) },
    { name: "assistant", hint: "id of the assistant", values: seen((run) => run.assistant_id) },
    { name: "thread", hint: "id of the thread", values: seen((run) => run.thread_id) },
    { name: "owner", hint: "whose it is", values: seen((run) => run.owner) },
    { name: "version", hint: "build of the last attempt", values: seen((run) => run.build) },
    { name: "worker", hint: "process of the last attempt", values: seen((run) => run.worker_id) },
    { name: "age", hint: "since it was asked for: >10m, <2h", values: [">10m", ">1h", "<1h", "<1d"], check: checkAge },
    { name: "tokens", hint: "used at least: >1000, >50k", values: [">1000", ">100k"], check: checkTokens },
    { name: "cost", hint: "cost at least, by the server's prices: >0.5", values: [">0.1", ">1"], check: checkCost },
    { name: "since", hint: "asked for at this time or later", check: checkMoment },
    { name: "until", hint: "asked for before this time", check: checkMoment },
    { name: "text", hint: "in ids, metadata or the error" },
  ];
}

/** The length of *value* in seconds, if it is an age: of a century at most, as there is no date for many more. */
function ageOf(value: string | undefined): { sign: string; seconds: number } | undefined {
  const [, sign, length, unit] = AGE.exec(value ?? "") ?? [];
  const seconds = Number(length) * UNITS[unit ?? ""]!;
  return sign && seconds <= MOST_AGE_S ? { sign, seconds } : undefined;
}

const checkAge = (value: string) =>
  ageOf(value) ? undefined : `“age:${value}” is no age; write age:>10m or age:<2h (s, m, h, d), a century at most.`;
const checkTokens = (value: string) =>
  TOKENS.test(value) ? undefined : `“tokens:${value}” is no number of tokens; write tokens:>1000.`;
const checkCost = (value: string) => (COST.test(value) ? undefined : `“cost:${value}” is no cost; write cost:>0.5, in the currency of the server's prices.`);
const checkMoment = (value: string) =>
  Number.isNaN(Date.parse(value)) ? `“${value}” is no time; write 2026-05-01 or 2026-05-01T12:00Z.` : undefined;

/** Return the filter of the API that *query* means at *now*. */
export function runFilter(query: Query, now: number): Record<string, unknown> {
  const { sign, seconds = 0 } = ageOf(query["age"]) ?? {};
  const age = sign && new Date(now - seconds * 1_000).toISOString();
  const [, tokens, thousands] = TOKENS.exec(query["tokens"] ?? "") ?? [];
  const [, cost] = COST.exec(query["cost"] ?? "") ?? [];
  const filter = {
    status: query["status"]?.split(","),
    end_reason: query["cause"]?.split(","),
    waits_for: query["waits"] && WAITS[query["waits"]],
    graph_id: query["graph"],
    assistant_id: query["assistant"],
    thread_id: query["thread"],
    owner: query["owner"],
    build: query["version"],
    worker_id: query["worker"],
    since: sign === "<" ? age : moment(query["since"]),
    until: sign === ">" ? age : moment(query["until"]),
    min_tokens: tokens && Number(tokens) * (thousands === "k" ? 1e3 : thousands === "M" ? 1e6 : 1),
    min_cost: cost && Number(cost),
    text: query["text"],
  };
  return Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined && value !== ""));
}

const moment = (text: string | undefined) => text && new Date(text).toISOString();
