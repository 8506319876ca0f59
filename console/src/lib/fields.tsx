/** Filters of a page: each is a part of the URL. */
import { place, setQuery } from "./route";

export function Choice({ name, label, options }: { name: string; label: string; options: [string, string][] }) {
  return (
    <label>
      {label}
      <select value={place.value.query[name] ?? ""} onChange={(event) => setQuery({ [name]: event.currentTarget.value })}>
        {options.map(([value, text]) => (
          <option key={value} value={value}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

interface TextFieldProps {
  name: string;
  label: string;
  type?: "text" | "date";
  /** What counts while the URL says nothing. */
  otherwise?: string;
}

export function TextField({ name, label, type = "text", otherwise = "" }: TextFieldProps) {
  return (
    <label>
      {label}
      <input type={type as "text"} value={place.value.query[name] ?? otherwise} onChange={(event) => setQuery({ [name]: event.currentTarget.value.trim() })} />
    </label>
  );
}
