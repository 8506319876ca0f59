/**
 * What a run's stream says as a conversation, whatever its stream modes are. Pure: events are folded into values that are
 * never changed, so that an earlier one can be shown again.
 */
import type { Item } from "./stream";

export interface ToolCall {
  id: string | null;
  name: string;
  /** An object, or the text of it that has come so far. */
  args: unknown;
}

export interface Message {
  id: string;
  type: "human" | "ai" | "tool" | "system" | string;
  name: string | null;
  content: unknown;
  calls: readonly ToolCall[];
  /** Of a tool's message: the call that it answers. */
  answers: string | null;
  failed: boolean;
  /** `cut`: it was streamed, and its attempt or run ended before it was whole. */
  state: "whole" | "partial" | "cut";
  /** Where it was made: the namespaces of subgraphs; empty in the graph itself. */
  path: string;
  node?: string;
}

export interface Question {
  id: string;
  value: unknown;
  response_schema?: unknown;
}

export interface Conversation {
  messages: readonly Message[];
  /** How many of them the thread had before this run; `null` until the run's state is known. */
  earlier: number | null;
  questions: readonly Question[];
  error: { error: string; message?: string } | null;
  attempt: number;
  ended: { status: string; end_reason: string } | null;
  /** The nodes that made messages, by the messages' ids. */
  nodes: Readonly<Record<string, string>>;
  /** Of the messages that the run was given: how many. */
  given: number;
}

type Wire = Record<string, any>;

/** Return the conversation before the first event, with the messages that the run was given. */
export function begin(input: unknown): Conversation {
  const messages = messagesIn(input).map((one, at) => messageOf(one, `input:${at}`));
  return { messages, earlier: null, questions: [], error: null, attempt: 0, ended: null, nodes: {}, given: messages.length };
}

/** Return *was* after the event *item*. */
export function fold(was: Conversation, item: Item): Conversation {
  const [name = "", path = ""] = item.event.split("|", 2);
  const data = item.data as Wire | undefined;
  if (name === "end") return cut({ ...was, ended: data as Conversation["ended"] });
  if (!data || typeof data !== "object") return was;
  switch (name) {
    case "metadata":
      return { ...cut(was), attempt: data["attempt"] ?? was.attempt };
    case "error":
      return { ...was, error: data as Conversation["error"] };
    case "messages/metadata":
      return withNodes(was, data);
    case "messages/partial":
    case "messages/complete":
      return upsert(was, messagesIn(data), name === "messages/partial" ? "partial" : "whole", path);
    case "messages":
      return chunk(was, data[0] ?? {}, data[1] ?? {}, path);
    case "values":
      return path ? was : asked(state(was, data), data);
    case "updates":
      return asked(upsert(was, Object.values(data).flatMap(messagesIn), "whole", path), data);
    default:
      return was;
  }
}

/** Return the messages in a state, an input or an update of it. */
export function messagesIn(value: unknown): Wire[] {
  const list = Array.isArray(value) ? value : value && typeof value === "object" ? (value as Wire)["messages"] : undefined;
  const all = Array.isArray(list) ? list : list === undefined ? [] : [list];
  return all.map((one) => (typeof one === "string" ? { type: "human", content: one } : one)).filter(isMessage);
}

function isMessage(one: unknown): one is Wire {
  return Boolean(one) && typeof one === "object" && "content" in one! && ("type" in one || "role" in one);
}

const TYPES: Record<string, string> = { user: "human", assistant: "ai", developer: "system" };

export function messageOf(wire: Wire, id: string, state: Message["state"] = "whole", path = ""): Message {
  const type = String(wire["type"] ?? wire["role"]);
  const plain = type.replace(/MessageChunk$/, "").toLowerCase();
  return {
    id: wire["id"] ?? id,
    type: TYPES[plain] ?? plain,
    name: wire["name"] ?? null,
    content: wire["content"],
    calls: callsOf(wire),
    answers: wire["tool_call_id"] ?? null,
    failed: wire["status"] === "error",
    state,
    path,
  };
}

function callsOf(wire: Wire): ToolCall[] {
  const calls: Wire[] = [...(wire["tool_calls"] ?? []), ...(wire["invalid_tool_calls"] ?? [])];
  return calls.map((call) => ({ id: call["id"] ?? null, name: String(call["name"] ?? ""), args: call["args"] }));
}

function withNodes(was: Conversation, data: Wire): Conversation {
  const nodes = { ...was.nodes };
  for (const [id, about] of Object.entries(data)) {
    const node = (about as Wire | null)?.["metadata"]?.["langgraph_node"];
    if (typeof node === "string") nodes[id] = node;
  }
  return { ...was, nodes };
}

function find(messages: readonly Message[], id: string): number {
  return messages.findLastIndex((message) => message.id === id);
}

function upsert(was: Conversation, wires: Wire[], state: Message["state"], path: string): Conversation {
  if (!wires.length) return was;
  const messages = [...was.messages];
  for (const wire of wires) {
    const made = messageOf(wire, `${messages.length}`, state, path);
    const at = wire["id"] ? find(messages, made.id) : given(messages, made);
    const before = messages[at];
    if (before) messages[at] = { ...made, path: before.path, node: before.node };
    else messages.push({ ...made, node: was.nodes[made.id] });
  }
  return { ...was, messages };
}

/** Return where the message without an id stands that is as *made*: what a run was given comes again with the state. */
function given(messages: readonly Message[], made: Message): number {
  return messages.findLastIndex((one) => one.type === made.type && one.content === made.content);
}

/** Append a chunk of a message to what has come of it. */
function chunk(was: Conversation, wire: Wire, about: Wire, path: string): Conversation {
  if (!isMessage(wire)) return was;
  const isChunk = String(wire["type"]).endsWith("Chunk");
  const state = isChunk && wire["chunk_position"] !== "last" ? "partial" : "whole";
  const at = find(was.messages, wire["id"]);
  const before = was.messages[at];
  const node = typeof about["langgraph_node"] === "string" ? about["langgraph_node"] : undefined;
  const messages = [...was.messages];
  if (before && isChunk && before.state === "partial") {
    messages[at] = { ...before, state, content: joined(before.content, wire["content"]), calls: grown(before.calls, wire) };
  } else {
    const made = messageOf(wire, `${messages.length}`, state, path);
    const whole = { ...made, node, calls: isChunk ? grown([], wire) : made.calls };
    if (before) messages[at] = whole;
    else messages.push(whole);
  }
  return { ...was, messages };
}

function joined(before: unknown, more: unknown): unknown {
  if (typeof before === "string" && typeof more === "string") return before + more;
  if (!before || (Array.isArray(before) && !before.length)) return more;
  if (!more || (Array.isArray(more) && !more.length)) return before;
  return [...blocksOf(more)].reduce(withBlock, blocksOf(before));
}

export function blocksOf(content: unknown): Wire[] {
  if (Array.isArray(content)) return content.map((one) => (typeof one === "string" ? { type: "text", text: one } : one));
  return content === "" || content === null || content === undefined ? [] : [{ type: "text", text: String(content) }];
}

function withBlock(blocks: Wire[], more: Wire): Wire[] {
  const last = blocks.at(-1);
  const same = last && last["type"] === more["type"] && last["index"] === more["index"];
  if (!same) return [...blocks, more];
  const merged = { ...last };
  for (const [name, value] of Object.entries(more)) {
    const before = merged[name];
    merged[name] = name !== "type" && name !== "id" && typeof before === "string" && typeof value === "string" ? before + value : value;
  }
  return [...blocks.slice(0, -1), merged];
}

function grown(calls: readonly ToolCall[], wire: Wire): ToolCall[] {
  const all = [...calls];
  for (const piece of (wire["tool_call_chunks"] ?? []) as Wire[]) {
    const at: number = piece["index"] ?? all.length;
    const before = all[at];
    all[at] = {
      id: piece["id"] ?? before?.id ?? null,
      name: (before?.name ?? "") + (piece["name"] ?? ""),
      args: String(before?.args ?? "") + String(piece["args"] ?? ""),
    };
  }
  return all.filter(Boolean);
}

/** The graph's state is what counts: it says which messages there are, and in which order. */
function state(was: Conversation, data: Wire): Conversation {
  if (!Array.isArray(data["messages"])) return was;
  const wires = messagesIn(data);
  const old = new Map(was.messages.map((message) => [message.id, message]));
  const kept = wires.map((wire, at) => {
    const made = messageOf(wire, `state:${at}`);
    const before = old.get(made.id);
    if (before?.state === "whole" && before.content === made.content && !made.calls.length) return before;
    return { ...made, node: before?.node ?? was.nodes[made.id], path: before?.path ?? "" };
  });
  const earlier = was.earlier ?? Math.max(0, kept.length - was.given);
  return { ...was, messages: withOthers(kept, was.messages), earlier };
}

/** Return the messages of the state with those that it lacks: each stays before the one that came next. */
function withOthers(kept: readonly Message[], was: readonly Message[]): Message[] {
  const ids = new Set(kept.map((message) => message.id));
  const before = new Map<string, Message[]>();
  let others: Message[] = [];
  for (const one of was) {
    if (ids.has(one.id)) {
      before.set(one.id, others);
      others = [];
    } else if (one.state !== "whole" || one.path) others.push(one);
  }
  return [...kept.flatMap((one) => [...(before.get(one.id) ?? []), one]), ...others];
}

function asked(was: Conversation, data: Wire): Conversation {
  const questions = data["__interrupt__"];
  if (!Array.isArray(questions)) return was;
  const all = new Map([...was.questions, ...(questions as Question[])].map((one) => [one.id, one]));
  return { ...was, questions: [...all.values()] };
}

/** Mark what was streamed and did not become whole. */
function cut(was: Conversation): Conversation {
  if (!was.messages.some((message) => message.state === "partial")) return was;
  return { ...was, messages: was.messages.map((one) => (one.state === "partial" ? { ...one, state: "cut" } : one)) };
}
