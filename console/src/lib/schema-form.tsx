/** A form from a JSON schema. What the schema does not say is a field of JSON. */
import type { ComponentChildren } from "preact";
import { useId, useState } from "preact/hooks";
import { type Schema, choices, initial, kindOf, own } from "./schema";

interface FieldProps {
  schema: Schema;
  root: Schema;
  /** As in the value: `messages`, or the number of an item. */
  name: string;
  value: unknown;
  onChange: (value: unknown) => void;
  required: boolean;
  /** Of this value in the whole, as `problems` names it. */
  path: string;
  problems?: ReadonlyMap<string, string>;
}

interface FormProps {
  schema: Schema;
  value: unknown;
  onChange: (value: unknown) => void;
  /** Shown beside the fields that they are about. */
  problems?: ReadonlyMap<string, string>;
  /** Names of the first level that somebody else shows. */
  without?: readonly string[];
}

export function SchemaForm({ schema, value, onChange, problems, without = [] }: FormProps) {
  const { kind, schema: whole } = kindOf(schema, schema);
  if (kind !== "object") {
    return <Field schema={schema} root={schema} name={whole.title ?? "Value"} value={value} onChange={onChange} required path="" problems={problems} />;
  }
  return <Properties schema={whole} root={schema} value={value} onChange={onChange} path="" problems={problems} without={without} />;
}

function Properties(props: Omit<FieldProps, "name" | "required"> & { without?: readonly string[] }) {
  const { schema, root, value, onChange, path, problems, without = [] } = props;
  const given = (value ?? {}) as Record<string, unknown>;
  const set = (name: string, one: unknown) => {
    const { [name]: _, ...rest } = given;
    onChange(one === undefined ? rest : { ...given, [name]: one });
  };
  return (
    <>
      {Object.entries(schema.properties ?? {})
        .filter(([name]) => !without.includes(name))
        .map(([name, one]) => (
          <Field
            key={name}
            schema={one}
            root={root}
            name={name}
            value={own(given, name)}
            onChange={(changed) => set(name, changed)}
            required={schema.required?.includes(name) ?? false}
            path={`${path}/${name}`}
            problems={problems}
          />
        ))}
    </>
  );
}

function Field(props: FieldProps) {
  const { kind, schema } = kindOf(props.schema, props.root);
  const inner = { ...props, schema };
  switch (kind) {
    case "object":
      return <Group {...inner} />;
    case "array":
      return <List {...inner} />;
    case "choice":
      return <Choice {...inner} />;
    case "const":
    case "null":
      return null;
    case "any":
      return <JsonField {...inner} />;
    default:
      return <Plain {...inner} kind={kind} />;
  }
}

function Labelled({ id, schema, name, required, problem, children }: LabelledProps) {
  return (
    <div class="field">
      <label for={id}>
        <span>
          {schema.title ?? name}
          {required && <span aria-hidden="true"> *</span>}
        </span>
      </label>
      {children}
      {schema.description && <small class="quiet">{schema.description}</small>}
      {problem && (
        <small class="refusal" id={`${id}-problem`}>
          {problem}
        </small>
      )}
    </div>
  );
}

interface LabelledProps {
  id: string;
  schema: Schema;
  name: string;
  required: boolean;
  problem?: string;
  children: ComponentChildren;
}

function Plain({ schema, name, value, onChange, required, path, problems, kind }: FieldProps & { kind: string }) {
  const id = useId();
  const problem = problems?.get(path);
  const shared = { id, "aria-required": required, "aria-invalid": problem ? true : undefined, "aria-describedby": problem ? `${id}-problem` : undefined };
  const labelled = { id, schema, name, required, problem };
  if (kind === "boolean") {
    return (
      <Labelled {...labelled}>
        <input {...shared} type="checkbox" checked={value === true} onChange={(event) => onChange(event.currentTarget.checked)} />
      </Labelled>
    );
  }
  if (kind === "enum") {
    const options = schema.enum ?? [];
    return (
      <Labelled {...labelled}>
        <select {...shared} value={String(options.indexOf(value))} onChange={(event) => onChange(options[Number(event.currentTarget.value)])}>
          {(!required || value === undefined) && <option value="-1">–</option>}
          {options.map((option, at) => (
            <option key={at} value={String(at)}>
              {typeof option === "string" ? option : JSON.stringify(option)}
            </option>
          ))}
        </select>
      </Labelled>
    );
  }
  if (kind === "number" || kind === "integer") {
    return (
      <Labelled {...labelled}>
        <input
          {...shared}
          type="number"
          step={kind === "integer" ? 1 : "any"}
          value={typeof value === "number" ? value : ""}
          onInput={(event) => onChange(event.currentTarget.value === "" ? undefined : event.currentTarget.valueAsNumber)}
        />
      </Labelled>
    );
  }
  const text = typeof value === "string" ? value : "";
  return (
    <Labelled {...labelled}>
      <textarea
        {...shared}
        rows={Math.min(12, Math.max(1, text.split("\n").length, Math.ceil(text.length / 80)))}
        value={text}
        onInput={(event) => onChange(event.currentTarget.value || (required ? "" : undefined))}
      />
    </Labelled>
  );
}

function Group(props: FieldProps) {
  const { schema, root, name, value, onChange, required, path, problems } = props;
  const there = value !== undefined && value !== null;
  return (
    <fieldset>
      <legend>
        {schema.title ?? name}
        {!required && (
          <button type="button" class="more" onClick={() => onChange(there ? undefined : initial(schema, root))}>
            {there ? "leave out" : "add"}
          </button>
        )}
      </legend>
      {schema.description && <small class="quiet">{schema.description}</small>}
      {(there || required) && <Properties schema={schema} root={root} value={value} onChange={onChange} path={path} problems={problems} />}
    </fieldset>
  );
}

function List({ schema, root, name, value, onChange, path, problems }: FieldProps) {
  const items = Array.isArray(value) ? (value as unknown[]) : [];
  const of = schema.items as Schema;
  const label = schema.title ?? name;
  return (
    <fieldset>
      <legend>{label}</legend>
      {schema.description && <small class="quiet">{schema.description}</small>}
      {items.map((item, at) => (
        <div key={at} class="item">
          <Field
            schema={of}
            root={root}
            name={`${label} ${at + 1}`}
            value={item}
            onChange={(changed) => onChange(items.map((one, index) => (index === at ? changed : one)))}
            required
            path={`${path}/${at}`}
            problems={problems}
          />
          <button type="button" class="more" onClick={() => onChange(items.filter((_, index) => index !== at))}>
            Remove {label} {at + 1}
          </button>
        </div>
      ))}
      {problems?.get(path) && <small class="refusal">{problems.get(path)}</small>}
      <button type="button" class="more" onClick={() => onChange([...items, initial(of, root) ?? ""])}>
        Add to {label}
      </button>
    </fieldset>
  );
}

function Choice({ schema, root, name, value, onChange, required, path, problems }: FieldProps) {
  const id = useId();
  const among = choices(schema, root);
  const [at, setAt] = useState(() => Math.max(0, among.findIndex((one) => fits(one, value, root))));
  const chosen = among[at] ?? {};
  return (
    <fieldset>
      <legend>{schema.title ?? name}</legend>
      <div class="field">
        <label for={id}>Kind</label>
        <select
          id={id}
          value={String(at)}
          onChange={(event) => {
            const next = Number(event.currentTarget.value);
            setAt(next);
            onChange(initial(among[next] ?? {}, root));
          }}
        >
          {among.map((one, index) => (
            <option key={index} value={String(index)}>
              {one.title ?? kindOf(one, root).kind}
            </option>
          ))}
        </select>
      </div>
      <Field schema={chosen} root={root} name={chosen.title ?? name} value={value} onChange={onChange} required={required} path={path} problems={problems} />
    </fieldset>
  );
}

/** Whether *value* looks like one of *schema*: by its kind, and by constants that tell objects apart. */
function fits(schema: Schema, value: unknown, root: Schema): boolean {
  const { kind, schema: one } = kindOf(schema, root);
  if (kind === "array") return Array.isArray(value);
  if (kind === "object" && typeof value === "object" && value !== null) {
    return Object.entries(one.properties ?? {}).every(([name, of]) => {
      const constant = own(of, "const");
      return constant === undefined || constant === own(value, name);
    });
  }
  return kind === "integer" ? typeof value === "number" : typeof value === kind;
}

function JsonField({ schema, name, value, onChange, required, path, problems }: FieldProps) {
  return (
    <JsonEditor
      label={schema.title ?? name}
      description={schema.description}
      value={value}
      onChange={onChange}
      required={required}
      problem={problems?.get(path)}
    />
  );
}

interface JsonEditorProps {
  label: string;
  description?: string;
  value: unknown;
  /** Called with each value that can be read; what cannot is shown as an error. */
  onChange: (value: unknown) => void;
  /** Called with whether the text can be read. */
  onReadable?: (readable: boolean) => void;
  required?: boolean;
  problem?: string;
}

export function JsonEditor({ label, description, value, onChange, onReadable, required = false, problem }: JsonEditorProps) {
  const id = useId();
  const [text, setText] = useState(() => (value === undefined ? "" : JSON.stringify(value, null, 2)));
  const [wrong, setWrong] = useState<string>();
  const change = (next: string) => {
    setText(next);
    try {
      onChange(next.trim() ? JSON.parse(next) : undefined);
      setWrong(undefined);
      onReadable?.(true);
    } catch (error) {
      setWrong(`This is not JSON: ${error instanceof Error ? error.message : String(error)}`);
      onReadable?.(false);
    }
  };
  return (
    <Labelled id={id} schema={{ title: label, description }} name={label} required={required} problem={wrong ?? problem}>
      <textarea
        id={id}
        class="mono"
        spellcheck={false}
        aria-invalid={wrong || problem ? true : undefined}
        rows={Math.min(20, Math.max(3, text.split("\n").length))}
        value={text}
        onInput={(event) => change(event.currentTarget.value)}
      />
    </Labelled>
  );
}
