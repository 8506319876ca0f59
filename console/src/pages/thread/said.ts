/** What a thread's messages are while a run adds to them. */
import { useEffect, useState } from "preact/hooks";
import { type Conversation, begin, fold, messageOf, messagesIn } from "../../lib/chat";
import { follow } from "../../lib/stream";
import type { State } from "./conversation";

/** Return the messages of *state*, and after them what the run *running* has said since. */
export function useSaid(state: State, running: string | undefined): Conversation {
  const [news, setNews] = useState<Conversation>();
  useEffect(() => {
    setNews(undefined);
    if (!running) return;
    let said = begin(null);
    return follow(running, (items) => {
      said = items.reduce(fold, said);
      setNews(said);
    });
  }, [running]);
  const messages = messagesIn(state.values).map((wire, at) => messageOf(wire, `state:${at}`));
  const known = new Set(messages.map((message) => message.id));
  const more = news?.messages.filter((message) => !known.has(message.id) && !message.id.startsWith("state:")) ?? [];
  return { ...begin(null), messages: [...messages, ...more], questions: state.interrupts };
}
