// A chat page as people write them; what differs between the two hooks is given as properties. An interrupt without a
// value is a breakpoint: where a stopped run would go on.
import { useState } from "react";

const asked = new URLSearchParams(location.search);
export const apiUrl = asked.get("api");
export const assistantId = asked.get("assistant") ?? "chat";
export const transport = asked.get("transport") ?? "sse";

/** The thread lives in the address, so that a reload comes back to it. */
export function useThread() {
  const [thread, set] = useState(asked.get("thread"));
  const keep = (id) => {
    asked.set("thread", id);
    history.replaceState(null, "", `?${asked}`);
    set(id);
  };
  return [thread, keep];
}

export const textOf = (message) =>
  typeof message.content === "string" ? message.content : message.content.map((block) => block.text ?? "").join("");

export function Chat({ messages, loading, error, interrupt, send, stop, decide, line }) {
  const [text, setText] = useState("");
  const submit = (event) => {
    event.preventDefault();
    send(text);
    setText("");
  };
  return (
    <main>
      <ol>{messages.map((message, index) => <li key={message.id ?? index} data-type={message.type}>{line(message)}</li>)}</ol>
      <form onSubmit={submit}>
        <input aria-label="message" value={text} onChange={(event) => setText(event.target.value)} />
        <button>Send</button>
      </form>
      <button onClick={stop}>Stop</button>
      {interrupt?.value && (
        <section aria-label="interrupt">
          <p>{interrupt.value.question} {interrupt.value.draft}</p>
          <button onClick={() => decide({ type: "approve" })}>Approve</button>
          <button onClick={() => decide({ type: "reject", message: "no" })}>Reject</button>
        </section>
      )}
      <p role="status">{loading ? "working" : "ready"}</p>
      {error && <p role="alert">{String(error)}</p>}
    </main>
  );
}

/** A message, with what one can do about it; *edit* and *redo* are absent while its checkpoint is not known. */
export function Line({ message, edit, redo }) {
  return (
    <>
      <span>{textOf(message)}</span>
      {edit && <button onClick={() => edit(`${textOf(message)} edited`)}>Edit</button>}
      {redo && <button onClick={redo}>Regenerate</button>}
    </>
  );
}
