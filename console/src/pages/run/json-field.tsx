/** A field for JSON, which says where it is wrong. */
import { useId } from "preact/hooks";

export interface Parsed {
  value: unknown;
  error: string | null;
}

export function parsedJson(text: string): Parsed {
  try {
    return { value: JSON.parse(text), error: null };
  } catch (error) {
    return { value: null, error: error instanceof Error ? error.message : String(error) };
  }
}

interface FieldProps {
  label: string;
  text: string;
  error: string | null;
  onText: (text: string) => void;
}

export function JsonField({ label, text, error, onText }: FieldProps) {
  const why = useId();
  return (
    <div>
      <label>
        {label}
        <textarea
          class="mono"
          rows={6}
          spellcheck={false}
          value={text}
          aria-invalid={Boolean(error)}
          aria-describedby={why}
          onInput={(event) => onText(event.currentTarget.value)}
        />
      </label>
      <span id={why} class="refusal">
        {error}
      </span>
    </div>
  );
}
