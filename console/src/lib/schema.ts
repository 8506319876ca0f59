/** JSON schemas, as far as forms need them. Pure. Source: JSON Schema 2020-12, as Pydantic writes it. */

export interface Schema {
  $ref?: string;
  $defs?: Record<string, Schema>;
  definitions?: Record<string, Schema>;
  type?: string | string[];
  title?: string;
  description?: string;
  default?: unknown;
  const?: unknown;
  enum?: unknown[];
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema | boolean;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  format?: string;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  [more: string]: unknown;
}

export type Kind = "object" | "array" | "enum" | "boolean" | "number" | "integer" | "string" | "const" | "choice" | "null" | "any";

const MOST_HOPS = 20;
/** Fields that a form shows at once; a larger one, or one without end, is a field of JSON. */
const MOST_FIELDS = 1_000;

/** Agents write schemas, too: what is none, such as `true`, is one of anything. */
function known(given: unknown): Schema {
  return given !== null && typeof given === "object" && !Array.isArray(given) ? (given as Schema) : {};
}

/** Return the own property *name*: no name of a schema or value means what all objects inherit. */
export function own(of: unknown, name: string): unknown {
  return of !== null && typeof of === "object" && Object.hasOwn(of, name) ? (of as Record<string, unknown>)[name] : undefined;
}

/** Follow references; one that leads nowhere, or round in a circle, is a schema of anything. */
export function resolve(given: unknown, root: Schema): Schema {
  let at = known(given);
  for (let hops = 0; hops < MOST_HOPS; hops++) {
    const { $ref, ...beside } = at;
    if ($ref !== undefined) {
      const [, place = "", name = ""] = /^#\/(\$defs|definitions)\/(.+)$/.exec(String($ref)) ?? [];
      const found = own(own(root, place), name);
      if (!found) return {};
      at = { ...known(found), ...beside };
    } else if (at.allOf?.length === 1) {
      at = { ...known(at.allOf[0]), ...(at.title ? { title: at.title } : {}) };
    } else return at;
  }
  return {};
}

const alternatives = (schema: Schema): Schema[] => [...(schema.anyOf ?? []), ...(schema.oneOf ?? [])].map(known);

/** The schemas to choose from, `null` apart: what may be null is optional. */
export function choices(schema: Schema, root: Schema): Schema[] {
  return alternatives(schema).map((one) => resolve(one, root)).filter((one) => one.type !== "null");
}

/** Return what kind of field *given* is, and the schema that it refers to. */
export function kindOf(given: Schema, root: Schema): { kind: Kind; schema: Schema } {
  const { kind, schema } = ownKind(given, root);
  const grows = kind === "object" || kind === "choice";
  return grows && !fieldsLeft(given, root, MOST_FIELDS) ? { kind: "any", schema } : { kind, schema };
}

/** Return how many of *left* fields are left once *given* is shown; 0: it is too large, or has no end. */
function fieldsLeft(given: Schema, root: Schema, left: number): number {
  if (left <= 1) return 0;
  const { kind, schema } = ownKind(given, root);
  let rest = left - 1;
  if (kind === "object") {
    for (const [name, one] of Object.entries(schema.properties ?? {})) {
      rest = schema.required?.includes(name) ? fieldsLeft(one, root, rest) : rest - 1;
      if (rest <= 0) return 0;
    }
  }
  if (kind === "choice") {
    for (const one of choices(schema, root)) {
      rest = fieldsLeft(one, root, rest);
      if (rest <= 0) return 0;
    }
  }
  return rest;
}

/** The kind of *given*, however large it is. */
function ownKind(given: Schema, root: Schema, hops = 0): { kind: Kind; schema: Schema } {
  const schema = resolve(given, root);
  if (schema.const !== undefined) return { kind: "const", schema };
  if (schema.enum) return { kind: "enum", schema };
  const among = choices(schema, root);
  if (among.length && hops > MOST_HOPS) return { kind: "any", schema: {} };
  if (among.length === 1 && among[0]) {
    const { kind, schema: only } = ownKind(among[0], root, hops + 1);
    return { kind, schema: { ...only, title: schema.title ?? only.title, description: schema.description ?? only.description, default: schema.default ?? only.default } };
  }
  if (among.length > 1) return { kind: "choice", schema };
  const type = Array.isArray(schema.type) ? schema.type.find((one) => one !== "null") : schema.type;
  if (type === "object") return { kind: schema.properties ? "object" : "any", schema };
  if (type === "array") return { kind: schema.items && typeof schema.items === "object" ? "array" : "any", schema };
  if (type === "boolean" || type === "number" || type === "integer" || type === "string" || type === "null") return { kind: type, schema };
  return { kind: schema.properties ? "object" : "any", schema };
}

/** What a form begins with: defaults, and an empty value where one is required. */
export function initial(given: Schema, root: Schema, required = true, depth = 0): unknown {
  const { kind, schema } = kindOf(given, root);
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (kind === "const") return schema.const;
  if (!required || depth > 6) return undefined;
  if (kind === "object") {
    const entries = Object.entries(schema.properties ?? {})
      .map(([name, one]) => [name, initial(one, root, schema.required?.includes(name) ?? false, depth + 1)] as const)
      .filter(([, value]) => value !== undefined);
    return Object.fromEntries(entries);
  }
  if (kind === "array") return [];
  if (kind === "boolean") return false;
  if (kind === "choice") return initial(choices(schema, root)[0] ?? {}, root, true, depth + 1);
  return undefined;
}

/** What keeps *value* from being sent, by path, in words. The server has the last word. */
export function problems(given: Schema, value: unknown, root: Schema, path = "", required = true): Map<string, string> {
  const { kind, schema } = kindOf(given, root);
  const found = new Map<string, string>();
  if (value === undefined || value === null || (value === "" && kind !== "string")) {
    if (required && kind !== "any" && kind !== "null" && !nullable(given, root)) found.set(path, "A value is needed.");
    return found;
  }
  if ((kind === "number" || kind === "integer") && typeof value === "number") {
    if (Number.isNaN(value)) found.set(path, "This is not a number.");
    else if (kind === "integer" && !Number.isInteger(value)) found.set(path, "A whole number is needed.");
    else if (schema.minimum !== undefined && value < schema.minimum) found.set(path, `At least ${schema.minimum}.`);
    else if (schema.maximum !== undefined && value > schema.maximum) found.set(path, `At most ${schema.maximum}.`);
  }
  if (kind === "string" && typeof value === "string") {
    if (value.length < (schema.minLength ?? 0)) found.set(path, `At least ${schema.minLength} characters.`);
    if (value.length > (schema.maxLength ?? Infinity)) found.set(path, `At most ${schema.maxLength} characters.`);
  }
  if (kind === "array" && Array.isArray(value)) {
    if (value.length < (schema.minItems ?? 0)) found.set(path, `At least ${schema.minItems} of them.`);
    value.forEach((one, at) => merge(found, problems(schema.items as Schema, one, root, `${path}/${at}`)));
  }
  if (kind === "object" && typeof value === "object") {
    for (const [name, one] of Object.entries(schema.properties ?? {})) {
      const here = own(value, name);
      merge(found, problems(one, here, root, `${path}/${name}`, schema.required?.includes(name) ?? false));
    }
  }
  return found;
}

function nullable(given: Schema, root: Schema): boolean {
  const schema = resolve(given, root);
  const types = [schema.type ?? []].flat();
  return types.includes("null") || alternatives(schema).some((one) => one.type === "null");
}

function merge(into: Map<string, string>, more: Map<string, string>): void {
  for (const [path, problem] of more) into.set(path, problem);
}
