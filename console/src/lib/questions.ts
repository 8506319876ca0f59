/** Open interrupts: what agents ask people, and the shapes of answers. Pure, but for `answer`. */
import { path, post } from "./api";
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

/** The interrupt takes no answer: somebody has answered it, or the thread has moved on. The message says which run. */
export class Answered extends Error {}

interface CommandAnswer {
  type: "success" | "error";
  error?: string;
  message?: string;
}

/** Resume the thread with *value*, as the first answer to its question. */
export async function answer(question: Question, value: unknown): Promise<void> {
  const told = await post<CommandAnswer>(path("/threads/{}/commands", question.thread_id), {
    id: 1,
    method: "input.respond",
    params: { interrupt_id: question.interrupt_id, namespace: [], response: value },
  });
  if (told.type !== "error") return;
  if (told.error === "no_such_interrupt") throw new Answered(told.message);
  throw new Error(told.message);
}
