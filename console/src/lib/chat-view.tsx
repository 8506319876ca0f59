/** A conversation to be read: messages, tool calls with their results, questions, and what was cut off. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { type Conversation, type Message, type ToolCall, blocksOf } from "./chat";
import { plural } from "./format";
import { Json } from "./json";
import { isImage, visibleText } from "./plain";

/** Messages shown before somebody asks for the ones above. */
const SHOWN = 60;
/** Characters of a text shown before somebody asks for the rest. */
const LONG = 3_000;

interface ChatProps {
  conversation: Conversation;
  /** Whether more may come. */
  active?: boolean;
}

export function Chat({ conversation, active = false }: ChatProps) {
  const { messages, questions, earlier, error } = conversation;
  const [extra, setExtra] = useState(0);
  const results = new Map(messages.filter((one) => one.answers).map((one) => [one.answers!, one]));
  const called = new Set(messages.flatMap((one) => one.calls.map((call) => call.id)));
  const shown = messages.map((message, at) => ({ message, at })).filter(({ message }) => !(message.answers && called.has(message.answers)));
  const before = shown.filter(({ at }) => at < (earlier ?? 0)).length;
  const first = Math.max(0, Math.max(before, shown.length - SHOWN) - extra);
  return (
    <div class="chat" role="log" aria-label="Conversation" aria-live="off">
      {first > 0 && (
        <button type="button" class="more" onClick={() => setExtra(extra + SHOWN)}>
          {plural(first, "message")} above{first <= before ? ", from before this run" : ""}
        </button>
      )}
      {shown.slice(first).map(({ message, at }) => (
        <Bubble key={message.id} message={message} results={results} active={active} old={at < (earlier ?? 0)} />
      ))}
      {questions.map((question) => (
        <div key={question.id} class="bubble bubble-question">
          <p class="bubble-who">◆ asks</p>
          <Value value={question.value} />
        </div>
      ))}
      {error && (
        <div class="bubble bubble-error">
          <p class="bubble-who">▲ {error.error}</p>
          {error.message && <Text text={error.message} />}
        </div>
      )}
    </div>
  );
}

interface BubbleProps {
  message: Message;
  results: ReadonlyMap<string, Message>;
  active: boolean;
  old: boolean;
}

const WHO: Record<string, string> = { human: "user", ai: "agent", tool: "tool", system: "system" };

function Bubble({ message, results, active, old }: BubbleProps) {
  const from = [message.name, message.node !== message.name && message.node, message.path && `in ${message.path.split(":")[0]}`];
  return (
    <div class={`bubble bubble-${message.type}${old ? " bubble-old" : ""}${message.path ? " bubble-inner" : ""}`}>
      <p class="bubble-who">
        {WHO[message.type] ?? message.type}
        {from.filter(Boolean).map((one) => (
          <bdi key={String(one)}> · {one}</bdi>
        ))}
        {message.state === "partial" && active && <span class="writing"> writing…</span>}
        {message.state === "cut" && <span class="refusal"> · cut off: this is all that came</span>}
      </p>
      <Content content={message.content} growing={message.state === "partial"} />
      {message.calls.map((call, at) => (
        <Call key={call.id ?? at} call={call} result={call.id === null ? undefined : results.get(call.id)} active={active} />
      ))}
    </div>
  );
}

function Call({ call, result, active }: { call: ToolCall; result: Message | undefined; active: boolean }) {
  const waits = active ? "running" : "no result: whether it had an effect is not known";
  const state = result ? (result.failed ? "▲ failed" : "● done") : `○ ${waits}`;
  return (
    <details class={`call${result?.failed ? " call-failed" : ""}`}>
      <summary>
        <bdi class="mono">{visibleText(call.name || "tool")}</bdi> <span class="call-args mono">{brief(call.args)}</span>
        <span class="call-state">{state}</span>
      </summary>
      <h3>Arguments</h3>
      <Value value={parsed(call.args)} />
      {result && (
        <>
          <h3>Result</h3>
          <Content content={result.content} />
        </>
      )}
    </details>
  );
}

function brief(args: unknown): string {
  const text = typeof args === "string" ? args : JSON.stringify(args ?? {});
  return visibleText(text.length > 80 ? `${text.slice(0, 80)}…` : text);
}

function parsed(args: unknown): unknown {
  if (typeof args !== "string") return args ?? {};
  try {
    return JSON.parse(args);
  } catch {
    return args; // it has not come whole
  }
}

export function Content({ content, growing = false }: { content: unknown; growing?: boolean }) {
  if (typeof content === "string") return <Text text={content} growing={growing} />;
  return (
    <>
      {blocksOf(content).map((block, at) => (
        <Block key={at} block={block} growing={growing} />
      ))}
    </>
  );
}

function Block({ block, growing }: { block: Record<string, any>; growing: boolean }) {
  const type = String(block["type"]);
  if (type === "text") return <Text text={String(block["text"] ?? "")} growing={growing} />;
  const thought = block["thinking"] ?? block["reasoning"];
  if (typeof thought === "string") {
    return (
      <Folded name="Reasoning">
        <Text text={thought} growing={growing} />
      </Folded>
    );
  }
  if (type.startsWith("image")) return <Image block={block} />;
  if (["tool_use", "tool_call", "input_json_delta"].includes(type)) return null; // it is among the calls
  return (
    <Folded name={type}>
      <Json value={block} open={1} />
    </Folded>
  );
}

function Folded({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <details class="call">
      <summary>{name}</summary>
      {children}
    </details>
  );
}

function Image({ block }: { block: Record<string, any> }) {
  const url = urlOf(block);
  if (isImage(url)) return <img class="picture" src={url} alt="Image of this message" />;
  const where = typeof url === "string" && !url.startsWith("data:") ? ` at ${url}` : "";
  return <p class="quiet">An image{visibleText(where)}. It is not loaded: it is not part of the message.</p>;
}

/** Source: the content blocks of LangChain, OpenAI and Anthropic. */
function urlOf(block: Record<string, any>): unknown {
  const source = block["source"] ?? block;
  const data = source["data"] ?? source["base64"];
  const type = source["media_type"] ?? source["mime_type"];
  if (typeof data === "string" && type) return `data:${type};base64,${data}`;
  const url = block["image_url"] ?? block["url"] ?? source["url"];
  return typeof url === "object" && url ? url.url : url;
}

/** A text as it is written. Of a long one the beginning; of one that grows, the end. */
export function Text({ text, growing = false }: { text: string; growing?: boolean }) {
  const [whole, setWhole] = useState(false);
  const long = !whole && text.length > LONG;
  const part = long ? (growing ? text.slice(-LONG) : text.slice(0, LONG)) : text;
  if (!text) return null;
  const more = long && (
    <button type="button" class="more" onClick={() => setWhole(true)}>
      all {plural(text.length, "character")}
    </button>
  );
  return (
    <div class="text" dir="auto">
      {growing && more}
      {visibleText(part)}
      {!growing && more}
    </div>
  );
}

function Value({ value }: { value: unknown }) {
  return typeof value === "string" ? <Text text={value} /> : <Json value={value} open={3} />;
}
