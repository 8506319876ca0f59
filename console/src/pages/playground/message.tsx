/** The box in which a message is written, with pictures. */
import type { ComponentChildren } from "preact";
import { useRef, useState } from "preact/hooks";
import { Button } from "../../lib/ui";
import type { Picture } from "./start";

const MAX_BYTES = 4_000_000;
const KINDS = "image/png,image/jpeg,image/gif,image/webp";

interface MessageBoxProps {
  busy: boolean;
  onSend: (text: string, pictures: Picture[]) => Promise<unknown>;
  /** Stands beside its buttons. */
  children: ComponentChildren;
}

export function MessageBox({ busy, onSend, children }: MessageBoxProps) {
  const [text, setText] = useState("");
  const [pictures, setPictures] = useState<Picture[]>([]);
  const [refused, setRefused] = useState<string>();
  const file = useRef<HTMLInputElement>(null);
  const send = async () => {
    await onSend(text, pictures);
    setText("");
    setPictures([]);
  };
  const add = async (files: FileList | null) => {
    setRefused(undefined);
    for (const one of files ?? []) {
      if (one.size > MAX_BYTES) setRefused(`${one.name} is larger than ${MAX_BYTES / 1e6} MB.`);
      else {
        const url = await asDataUrl(one);
        setPictures((was) => [...was, { name: one.name, url }]);
      }
    }
    if (file.current) file.current.value = "";
  };
  return (
    <div class="message-box">
      <label class="hidden" for="message">
        Message
      </label>
      <textarea
        id="message"
        rows={3}
        placeholder="Message (Ctrl Enter sends it)"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && text) void send();
        }}
      />
      {pictures.map((picture, at) => (
        <span key={at} class="picture">
          <img src={picture.url} alt={picture.name} />
          <button type="button" class="more" onClick={() => setPictures(pictures.filter((_, index) => index !== at))}>
            Remove {picture.name}
          </button>
        </span>
      ))}
      {refused && (
        <p class="refusal" role="alert">
          {refused}
        </p>
      )}
      <div class="actions">
        <Button kind="primary" disabled={!text && !pictures.length} onClick={send}>
          {busy ? "Send while it runs" : "Send"}
        </Button>
        <Button onClick={() => file.current?.click()}>Add picture</Button>
        <input ref={file} type="file" accept={KINDS} multiple hidden aria-label="Pictures" onChange={(event) => add(event.currentTarget.files)} />
        {children}
      </div>
    </div>
  );
}

function asDataUrl(file: File): Promise<string> {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(String(reader.result));
    reader.onerror = () => failed(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}
