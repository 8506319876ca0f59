/** Any value as a tree that opens. Long texts and lists are cut, and say so. */
import { useState } from "preact/hooks";
import { visibleText } from "./plain";

const LONG_TEXT = 2_000;
const LONG_LINES = 40;
const MANY = 100;

export function Json({ value, open = 2 }: { value: unknown; open?: number }) {
  return (
    <div class="json">
      <Node value={value} open={open} />
    </div>
  );
}

function Node({ name, value, open }: { name?: string; value: unknown; open: number }) {
  const [shown, setShown] = useState(MANY);
  const label = name === undefined ? null : <span class="json-name">{visibleText(name)}: </span>;
  if (value === null || typeof value !== "object") {
    return (
      <div>
        {label}
        <Leaf value={value} />
      </div>
    );
  }
  const list = Array.isArray(value);
  const entries: [string, unknown][] = list ? value.map((one, at) => [String(at), one]) : Object.entries(value);
  const brackets = list ? `[${entries.length}]` : `{${entries.length}}`;
  if (!entries.length) {
    return (
      <div>
        {label}
        <span class="json-size">{list ? "[]" : "{}"}</span>
      </div>
    );
  }
  return (
    <details open={open > 0}>
      <summary>
        {label}
        <span class="json-size">{brackets}</span>
      </summary>
      {entries.slice(0, shown).map(([key, one]) => (
        <Node key={key} name={key} value={one} open={open - 1} />
      ))}
      {entries.length > shown && (
        <button type="button" class="more" onClick={() => setShown(shown + MANY)}>
          {entries.length - shown} more
        </button>
      )}
    </details>
  );
}

/** A value that is no object: a text that can be read, and is cut where it is long. */
function Leaf({ value }: { value: unknown }) {
  return <Cut kind={`json-${typeof value}`} text={typeof value === "string" ? value : JSON.stringify(value)} />;
}

/** A text that shows its rest on demand. */
export function Cut({ text: given, kind, most = LONG_TEXT, lines = LONG_LINES }: { text: string; kind?: string; most?: number; lines?: number }) {
  const [whole, setWhole] = useState(false);
  const text = visibleText(given);
  const cut = text.slice(0, most).split("\n", lines).join("\n");
  if (whole || cut.length === text.length) return <span class={kind}>{text}</span>;
  return (
    <>
      <span class={kind}>{cut}…</span>
      <button type="button" class="more" onClick={() => setWhole(true)}>
        all {text.length} characters
      </button>
    </>
  );
}
