/** Filters as words, `status:error text:"rate limit"`, and as the query of the URL. Pure. */
import type { Query } from "./route";

export interface Field {
  /** The word before the colon, and the name in the URL. */
  name: string;
  hint: string;
  /** What completion offers. */
  values?: readonly string[];
  /** Nothing but `values`. */
  closed?: true;
  /** Several with commas between them: any of these. */
  many?: true;
  /** Return why *value* cannot be, in a sentence. */
  check?: (value: string) => string | undefined;
}

export interface Parsed {
  query: Query;
  /** Sentences; what they are about is not in `query`. */
  errors: string[];
}

const WORD = /(?:([A-Za-z_]+):)?("(?:[^"\\]|\\.)*"?|[^\s"]\S*)|([A-Za-z_]+):/g;

/** Return what *text* asks for. Words without a colon are the field `text`. */
export function parseFilter(text: string, fields: readonly Field[]): Parsed {
  const query = Object.create(null) as Query; // `__proto__:` is a word like any other
  const free: string[] = [];
  const errors: string[] = [];
  for (const [, name, given = "", empty] of text.matchAll(WORD)) {
    const value = unquoted(given);
    if (empty || (name && !value)) errors.push(`“${empty ?? name}:” has no value.`);
    else if (!name) free.push(value);
    else if (!Object.hasOwn(query, name)) query[name] = value;
    else if (fields.some((field) => field.name === name && field.many)) query[name] += `,${value}`;
    else errors.push(`“${name}:” is there twice.`);
  }
  if (free.length) query["text"] = [query["text"], ...free].filter(Boolean).join(" ");
  const checked = checkQuery(query, fields);
  return { query: checked.query, errors: [...errors, ...checked.errors] };
}

/** Return what of *query* is a filter, and what is wrong with the rest. */
export function checkQuery(query: Query, fields: readonly Field[]): Parsed {
  const good: Query = {};
  const errors: string[] = [];
  for (const [name, value] of Object.entries(query)) {
    const field = fields.find((one) => one.name === name);
    const error = field ? wrong(field, value) : `There is no filter “${name}:”; there are ${fields.map((one) => one.name).join(", ")}.`;
    if (error) errors.push(error);
    else good[name] = value;
  }
  return { query: good, errors };
}

function wrong(field: Field, value: string): string | undefined {
  for (const one of field.many ? value.split(",") : [value]) {
    if (field.closed && !field.values?.includes(one)) return `“${field.name}:${one}” is none of ${field.values?.join(", ")}.`;
    const error = field.check?.(one);
    if (error) return error;
  }
  return undefined;
}

/** Return why *text* is no JSON object, for the `check` of a field. */
export function checkObject(text: string): string | undefined {
  const wrong = `“${text}” is no JSON object, such as {"team":"billing"}.`;
  try {
    return isObject(JSON.parse(text)) ? undefined : wrong;
  } catch {
    return wrong;
  }
}

export const isObject = (value: unknown): boolean => Boolean(value) && typeof value === "object" && !Array.isArray(value);

/** Return *query* as words. */
export function formatFilter(query: Query): string {
  return Object.entries(query)
    .map(([name, value]) => `${name}:${quoted(value)}`)
    .join(" ");
}

function quoted(value: string): string {
  return /^[^\s"]\S*$/.test(value) ? value : `"${value.replace(/[\\"]/g, "\\$&")}"`;
}

function unquoted(text: string): string {
  return text.startsWith('"') ? text.replace(/^"|"$/g, "").replace(/\\(.)/g, "$1") : text;
}

export interface Completion {
  /** The part of the text that an option replaces. */
  from: number;
  to: number;
  options: { text: string; hint: string }[];
}

/** Return how the word at *caret* can go on. */
export function complete(text: string, caret: number, fields: readonly Field[]): Completion {
  const from = text.slice(0, caret).search(/\S*$/);
  const word = text.slice(from, caret);
  const to = caret;
  const [name = "", value] = word.split(":", 2);
  if (value === undefined) {
    const found = fields.filter((field) => field.name.startsWith(name.toLowerCase()));
    return { from, to, options: found.map((field) => ({ text: `${field.name}:`, hint: field.hint })) };
  }
  const field = fields.find((one) => one.name === name);
  const given = field?.many ? value.slice(0, value.lastIndexOf(",") + 1) : "";
  const begun = value.slice(given.length).toLowerCase();
  const found = (field?.values ?? []).filter((one) => one.toLowerCase().startsWith(begun) && one !== begun).slice(0, 12);
  return { from, to, options: found.map((one) => ({ text: `${name}:${given}${quoted(one)} `, hint: "" })) };
}
