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

/** Follow references; one that leads nowhere, or round in a circle, is a schema of anything. */
export function resolve(schema: Schema, root: Schema): Schema {
  let at: Schema = schema;
  for (let hops = 0; at.$ref !== undefined; hops++) {
    const [, place, name] = /^#\/(\$defs|definitions)\/(.+)$/.exec(at.$ref) ?? [];
    const found = place && name ? (root[place] as Record<string, Schema> | undefined)?.[name] : undefined;
    if (!found || hops > 20) return {};
    const { $ref: _, ...beside } = at;
    at = { ...found, ...beside };
  }
  if (at.allOf?.length === 1) return resolve({ ...at.allOf[0], ...(at.title ? { title: at.title } : {}) }, root);
  return at;
}

/** The schemas to choose from, `null` apart: what may be null is optional. */
export function choices(schema: Schema, root: Schema): Schema[] {
  return [...(schema.anyOf ?? []), ...(schema.oneOf ?? [])].map((one) => resolve(one, root)).filter((one) => one.type !== "null");
}

export function kindOf(given: Schema, root: Schema): { kind: Kind; schema: Schema } {
  const schema = resolve(given, root);
  if (schema.const !== undefined) return { kind: "const", schema };
  if (schema.enum) return { kind: "enum", schema };
  const among = choices(schema, root);
  if (among.length === 1 && among[0]) {
    const { kind, schema: only } = kindOf(among[0], root);
    return { kind, schema: { ...only, title: schema.title ?? only.title, description: schema.description ?? only.description, default: schema.default ?? only.default } };
  }
  if (among.length > 1) return { kind: "choice", schema };
  const type = Array.isArray(schema.type) ? schema.type.find((one) => one !== "null") : schema.type;
  if (type === "object") return { kind: schema.properties ? "object" : "any", schema };
  if (type === "array") return { kind: typeof schema.items === "object" ? "array" : "any", schema };
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
      const here = (value as Record<string, unknown>)[name];
      merge(found, problems(one, here, root, `${path}/${name}`, schema.required?.includes(name) ?? false));
    }
  }
  return found;
}

function nullable(given: Schema, root: Schema): boolean {
  const schema = resolve(given, root);
  const types = [schema.type ?? []].flat();
  return types.includes("null") || [...(schema.anyOf ?? []), ...(schema.oneOf ?? [])].some((one) => one.type === "null");
}

function merge(into: Map<string, string>, more: Map<string, string>): void {
  for (const [path, problem] of more) into.set(path, problem);
}
