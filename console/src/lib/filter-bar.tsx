/** The bar in which a list's filter is written, with completion. The filter itself is in the URL. */
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { type Field, type Parsed, complete, formatFilter, parseFilter } from "./filter";
import { useKeys } from "./keys";
import { setQuery } from "./route";

interface FilterBarProps {
  label: string;
  fields: readonly Field[];
  /** What the URL says. */
  given: Parsed;
  example: string;
}

export function FilterBar({ label, fields, given, example }: FilterBarProps) {
  const shown = formatFilter(given.query);
  const [text, setText] = useState(shown);
  const [errors, setErrors] = useState<string[]>([]);
  const [caret, setCaret] = useState<number>();
  const [at, setAt] = useState(-1);
  const input = useRef<HTMLInputElement>(null);
  const id = useId();
  useKeys([{ press: "f", does: "Filter", run: () => input.current?.focus() }], []);
  useEffect(() => {
    setText(shown);
    setErrors([]);
  }, [shown]);

  const completion = caret === undefined ? undefined : complete(text, caret, fields);
  const options = completion?.options ?? [];
  const changed = (next: string, place: number | null) => {
    setText(next);
    setCaret(place ?? next.length);
    setAt(-1);
  };
  const take = (option: string) => {
    const next = text.slice(0, completion!.from) + option + text.slice(completion!.to);
    const place = completion!.from + option.length;
    const field = input.current!;
    field.value = next; // at once, so that the caret is in its place before the next key
    field.focus();
    field.setSelectionRange(place, place);
    changed(next, place);
  };
  const apply = (wanted: string) => {
    const parsed = parseFilter(wanted, fields);
    setErrors(parsed.errors);
    if (parsed.errors.length) return;
    setCaret(undefined);
    const none = Object.fromEntries(fields.map((field) => [field.name, undefined]));
    setQuery({ ...none, ...parsed.query, before: undefined });
  };
  const onKey = (event: KeyboardEvent) => {
    const chosen = options[at];
    if (event.key === "ArrowDown") setAt(Math.min(options.length - 1, at + 1));
    else if (event.key === "ArrowUp") setAt(Math.max(-1, at - 1));
    else if (event.key === "Escape") setCaret(undefined);
    else if (chosen && (event.key === "Enter" || event.key === "Tab")) take(chosen.text);
    else return;
    event.preventDefault();
  };
  const wrong = errors.length ? errors : given.errors;
  return (
    <form
      class="filter"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        apply(text);
      }}
    >
      <div class="filter-line">
        <input
          ref={input}
          type="text"
          role="combobox"
          aria-label={label}
          aria-expanded={options.length > 0}
          aria-controls={options.length ? id : undefined}
          aria-activedescendant={at >= 0 ? `${id}-${at}` : undefined}
          aria-autocomplete="list"
          autoComplete="off"
          spellcheck={false}
          placeholder={`Filter, such as ${example}`}
          value={text}
          onInput={(event) => changed(event.currentTarget.value, event.currentTarget.selectionStart)}
          onFocus={(event) => changed(event.currentTarget.value, event.currentTarget.selectionStart)}
          onBlur={() => setCaret(undefined)}
          onKeyDown={onKey}
        />
        <button type="submit" class="button">
          Filter
        </button>
        {(text || wrong.length > 0) && (
          <button type="button" class="more" onClick={() => (setText(""), apply(""))}>
            Clear
          </button>
        )}
      </div>
      {options.length > 0 && (
        <ul id={id} role="listbox" aria-label="Completions" class="completions">
          {options.map((option, index) => (
            <li
              key={option.text}
              id={`${id}-${index}`}
              role="option"
              aria-selected={index === at}
              onMouseDown={(event) => {
                event.preventDefault(); // the input keeps the focus
                take(option.text);
              }}
            >
              <code>{option.text.trim()}</code> <span class="quiet">{option.hint}</span>
            </li>
          ))}
        </ul>
      )}
      {wrong.map((error) => (
        <p key={error} class="refusal" role="alert">
          {error}
        </p>
      ))}
    </form>
  );
}
