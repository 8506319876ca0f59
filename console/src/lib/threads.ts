/** Threads as `POST /threads/search` answers them without their values. */
import { visibleText } from "./plain";
import { messagesIn } from "./chat";
import { page } from "./api";

export interface ThreadSummary {
  thread_id: string;
  created_at: string;
  updated_at: string;
  state_updated_at: string;
  metadata: Record<string, unknown>;
  /** Where operators list threads. */
  owner?: string;
  status: "idle" | "busy" | "interrupted" | "error";
  interrupts: Record<string, { id: string; value: unknown }[]>;
  error: { error: string; message: string | null } | null;
  /** The thread's first message, where a search extracted it. */
  extracted?: { first?: unknown };
}

export const SUMMARY = ["thread_id", "created_at", "updated_at", "state_updated_at", "metadata", "status", "interrupts", "error"];
const TITLE_CHARS = 90;

/** Return what a person would call the thread: its title, or how it began. */
export function titleOf(thread: ThreadSummary): string | undefined {
  const given = thread.metadata["title"] ?? thread.metadata["thread_title"] ?? thread.metadata["name"];
  return shortened(typeof given === "string" && given ? given : textOf(thread.extracted?.first));
}

/** Return the text of a message of a state. */
function textOf(message: unknown): string | undefined {
  const content = messagesIn([message])[0]?.["content"];
  if (!Array.isArray(content)) return typeof content === "string" ? content : undefined;
  return content.map((block) => (typeof block === "string" ? block : (block?.text ?? ""))).join(" ");
}

/** Return the beginning of *text* as one line that can be read. */
export function shortened(text: string | undefined | null): string | undefined {
  const line = text && visibleText(text.replace(/\s+/g, " ").trim());
  return line && line.length > TITLE_CHARS ? `${line.slice(0, TITLE_CHARS)}…` : line || undefined;
}

/** Return one thread without its values, which can be large; `undefined` if there is none. */
export async function readThread(threadId: string, headers: Record<string, string>, stop: AbortSignal): Promise<ThreadSummary | undefined> {
  const body = { ids: [threadId], limit: 1, select: SUMMARY };
  return (await page<ThreadSummary>("POST", "/threads/search", { body, headers, signal: stop })).items[0];
}

/** Return the assistant that the thread ran on last, as far as it is known. */
export const assistantOf = (thread: ThreadSummary): string | undefined =>
  (thread.metadata["assistant_id"] ?? thread.metadata["graph_id"]) as string | undefined;
