/** What a run is started with, and its start. */
import { path, post } from "../../lib/api";
import type { Schema } from "../../lib/schema";
import { kindOf } from "../../lib/schema";

export interface Options {
  multitask_strategy: "enqueue" | "reject" | "interrupt" | "rollback";
  durability: "async" | "sync" | "exit";
  /** Names of nodes, or `*`; separated by spaces or commas. */
  interrupt_before: string;
  interrupt_after: string;
}

export const OPTIONS: Options = { multitask_strategy: "enqueue", durability: "async", interrupt_before: "", interrupt_after: "" };

export interface Started {
  run_id: string;
  thread_id: string;
}

function nodes(text: string): string | string[] | undefined {
  const names = text.split(/[\s,]+/).filter(Boolean);
  return names.length === 0 ? undefined : names[0] === "*" ? "*" : names;
}

export function requestOf(assistantId: string, input: unknown, context: unknown, options: Options): Record<string, unknown> {
  return {
    assistant_id: assistantId,
    input,
    context,
    multitask_strategy: options.multitask_strategy,
    durability: options.durability,
    interrupt_before: nodes(options.interrupt_before),
    interrupt_after: nodes(options.interrupt_after),
    stream_mode: ["values", "messages-tuple", "updates", "tasks", "custom"],
    stream_subgraphs: true,
  };
}

export async function start(threadId: string | undefined, body: Record<string, unknown>): Promise<Started> {
  const thread = threadId ?? (await post<{ thread_id: string }>("/threads", {})).thread_id;
  return post<Started>(path("/threads/{}/runs", thread), body);
}

/** Whether the input has messages, which are written as a chat and not as a form. */
export function hasMessages(schema: Schema): boolean {
  const { kind, schema: input } = kindOf(schema, schema);
  const messages = kind === "object" ? input.properties?.["messages"] : undefined;
  return messages !== undefined && kindOf(messages, schema).kind === "array";
}

export interface Picture {
  name: string;
  url: string;
}

/** A person's message, with pictures in the form that chat models take. */
export function humanMessage(text: string, pictures: Picture[]): unknown {
  const content = pictures.length
    ? [{ type: "text", text }, ...pictures.map(({ url }) => ({ type: "image_url", image_url: { url } }))]
    : text;
  return { type: "human", content };
}
