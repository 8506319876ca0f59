/** Open interrupts: what agents ask people, the shapes of answers, and the requests for both. */
import { ApiError, type Options, page, path, post } from "./api";
import { age } from "./format";
import type { Schema } from "./schema";

export interface Question {
  thread_id: string;
  /** The run that asked. */
  run_id: string | null;
  interrupt_id: string;
  graph_id: string | null;
  assistant_id: string | null;
  owner: string | null;
  /** Since when it waits. */
  since: string;
  /** What was asked; missing where payload is hidden. */
  value: unknown;
  response_schema?: Schema | null;
}

/** A tool call that waits for a person. Source: LangChain, HumanInTheLoopMiddleware; LangGraph, HumanInterrupt. */
export interface Review {
  name: string;
  args: Record<string, unknown>;
  description?: string;
  allowed: Decision[];
  argsSchema?: Schema;
}

export type Decision = "approve" | "edit" | "reject" | "respond";

export interface Decided {
  type: Decision;
  args?: Record<string, unknown>;
  message?: string;
}

interface ActionRequest {
  name: string;
  args?: Record<string, unknown>;
  arguments?: Record<string, unknown>;
  description?: string;
}

interface ReviewConfig {
  action_name: string;
  allowed_decisions?: Decision[];
  args_schema?: Schema;
}

interface LegacyRequest {
  action_request: { action: string; args: Record<string, unknown> };
  config?: { allow_accept?: boolean; allow_edit?: boolean; allow_respond?: boolean; allow_ignore?: boolean };
  description?: string;
}

export type Asked =
  | { kind: "reviews"; reviews: Review[] }
  | { kind: "legacy"; reviews: Review[] }
  | { kind: "schema"; schema: Schema }
  | { kind: "any" };

const ALL: Decision[] = ["approve", "edit", "reject"];

/** What kind of answer *question* takes. */
export function asked({ value, response_schema }: Pick<Question, "value" | "response_schema">): Asked {
  const given = value as Record<string, unknown> | null;
  if (given && typeof given === "object" && Array.isArray(given["action_requests"])) {
    const configs = (given["review_configs"] ?? []) as ReviewConfig[];
    const reviews = (given["action_requests"] as ActionRequest[]).map((request): Review => {
      const config = configs.find((one) => one.action_name === request.name);
      return {
        name: request.name,
        args: request.args ?? request.arguments ?? {},
        description: withoutArguments(request),
        allowed: config?.allowed_decisions ?? ALL,
        argsSchema: config?.args_schema,
      };
    });
    return { kind: "reviews", reviews };
  }
  const legacy = (Array.isArray(value) ? value : [value]) as LegacyRequest[];
  if (legacy.length && legacy.every((one) => typeof one?.action_request?.action === "string")) {
    return { kind: "legacy", reviews: legacy.map(fromLegacy) };
  }
  const schema = response_schema ?? (given?.["response_schema"] as Schema | undefined);
  return schema && typeof schema === "object" ? { kind: "schema", schema } : { kind: "any" };
}

/** The middleware's own description repeats the call, which is shown beside it. */
function withoutArguments({ description, name }: ActionRequest): string | undefined {
  return description?.split(`\n\nTool: ${name}\nArgs:`, 1)[0];
}

function fromLegacy({ action_request, config = {}, description }: LegacyRequest): Review {
  const allowed: [Decision, boolean | undefined][] = [
    ["approve", config.allow_accept],
    ["edit", config.allow_edit],
    ["reject", config.allow_ignore],
    ["respond", config.allow_respond],
  ];
  return {
    name: action_request.action,
    args: action_request.args,
    description,
    allowed: allowed.filter(([, is]) => is).map(([name]) => name),
  };
}

/** Return the value that resumes a graph which asked for *reviews*. */
export function resumeValue(kind: "reviews" | "legacy", reviews: Review[], decided: Decided[]): unknown {
  if (kind === "reviews") {
    return {
      decisions: decided.map((one, at) => {
        if (one.type === "edit") return { type: "edit", edited_action: { name: reviews[at]?.name, args: one.args } };
        return one.message ? { type: one.type, message: one.message } : { type: one.type };
      }),
    };
  }
  return decided.map((one, at) => {
    if (one.type === "edit") return { type: "edit", args: { action: reviews[at]?.name, args: one.args } };
    if (one.type === "respond") return { type: "response", args: one.message ?? "" };
    return { type: one.type === "approve" ? "accept" : "ignore", args: null };
  });
}

/** What `POST /interrupts/search` answers. */
interface Asking {
  thread_id: string;
  run_id: string | null;
  owner: string;
  graph_id: string | null;
  metadata: { assistant_id?: string };
  since: string;
  interrupts: { id: string; value?: unknown; response_schema?: Question["response_schema"] }[];
}

export interface Open {
  questions: Question[];
  /** Whether more threads ask. */
  more: boolean;
}

/** Find what is asked on up to `limit` threads, the oldest question first. */
export async function openQuestions(body: { thread_id?: string; limit: number }, options: Options): Promise<Open> {
  const found = await page<Asking>("POST", "/interrupts/search", { ...options, body });
  return { questions: found.items.flatMap(questionsOf), more: found.next !== null };
}

function questionsOf(thread: Asking): Question[] {
  return thread.interrupts.map((one) => ({
    thread_id: thread.thread_id,
    run_id: thread.run_id,
    interrupt_id: one.id,
    graph_id: thread.graph_id,
    assistant_id: thread.metadata.assistant_id ?? null,
    owner: thread.owner || null,
    since: thread.since,
    value: one.value,
    response_schema: one.response_schema,
  }));
}

/** What `POST /interrupts/answered` answers. */
export interface Answering {
  run_id: string;
  thread_id: string;
  graph_id: string | null;
  interrupt_ids: string[];
  answered_by: string;
  answered_at: string;
  status: string;
}

export const answered = (body: { thread_id?: string; limit: number }, stop?: AbortSignal): Promise<Answering[]> =>
  post<Answering[]>("/interrupts/answered", body, stop);

/** The interrupt takes no answer: somebody has answered it, or the thread has moved on. The message says who. */
export class Answered extends Error {}

const ROUTE = "/threads/{}/interrupts/answer";
const ANSWERS = 20;

/** Resume the thread with *value*, as the first answer to its question. Returns: The run that goes on. */
export async function answer({ thread_id, interrupt_id }: Question, value: unknown): Promise<string> {
  try {
    return (await post<{ run_id: string }>(path(ROUTE, thread_id), { answers: { [interrupt_id]: value } })).run_id;
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "no_such_interrupt") throw error;
    const all = await answered({ thread_id, limit: ANSWERS });
    const first = all.find((one) => !one.interrupt_ids.length || one.interrupt_ids.includes(interrupt_id));
    throw new Answered(first ? `${first.answered_by || "Somebody"} answered it ${age(first.answered_at)}, with run ${first.run_id}.` : error.message);
  }
}

/** How programs answer *question*. */
export function answerCode({ thread_id, interrupt_id }: Question) {
  const route = path(ROUTE, thread_id);
  return {
    http: `POST ${route} {"answers": {"${interrupt_id}": …}}`,
    cli: `runlane interrupts answer ${thread_id} '…' --interrupt ${interrupt_id}`,
    python: `await client.http.post("${route}", json={"answers": {"${interrupt_id}": ...}})`,
  };
}
