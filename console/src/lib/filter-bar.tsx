/** The bar in which a list's filter is written, with completion. The filter itself is in the URL. */
import type { ComponentChildren } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { type Field, type Parsed, checkQuery, complete, formatFilter, parseFilter } from "./filter";
import { useKeys } from "./keys";
import { type Query, place, setQuery } from "./route";

interface FilterBarProps {
  label: string;
  fields: readonly Field[];
  given: Given;
  example: string;
  /** What the filter chooses; it is not shown while the filter is refused. */
  children: ComponentChildren;
}

/** The filter of the page. With `errors` it is refused as a whole: nothing is read, shown or changed by its good part. */
export interface Given extends Parsed {
  /** The words of the URL, good or not. */
  words: Query;
  /** Refuse what was typed, for these reasons. */
  refuse: (errors: string[]) => void;
}

/** Return what the URL says; *others* are names in it with another meaning. */
export function useFilter(fields: readonly Field[], others: readonly string[] = []): Given {
  const [typed, refuse] = useState<string[]>([]);
  const { query } = place.value;
  const words = Object.fromEntries(Object.entries(query).filter(([name]) => !others.includes(name)));
  const checked = checkQuery(words, fields);
  return { ...checked, errors: typed.length ? typed : checked.errors, words, refuse };
}

export function FilterBar({ label, fields, given, example, children }: FilterBarProps) {
  const shown = formatFilter(given.words);
  const [text, setText] = useState(shown);
  const [caret, setCaret] = useState<number>();
  const [at, setAt] = useState(-1);
  const input = useRef<HTMLInputElement>(null);
  const id = useId();
  useKeys([{ press: "f", does: "Filter", run: () => input.current?.focus() }], []);
  useEffect(() => {
    setText(shown);
    given.refuse([]);
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
    given.refuse(parsed.errors);
    if (parsed.errors.length) return;
    setCaret(undefined);
    const none = Object.fromEntries(Object.keys(given.words).map((name) => [name, undefined]));
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
  const wrong = given.errors;
  return (
    <>
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
      {!wrong.length && children}
    </>
  );
}
