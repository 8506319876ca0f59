/** The answer to an open interrupt: decisions on tool calls, a form from a schema, or JSON. */
import { useErrorBoundary, useId, useState } from "preact/hooks";
import { Cut, Json } from "./json";
import { type Decided, type Decision, type Question, type Review, asked, resumeValue } from "./questions";
import { visibleText } from "./plain";
import { type Schema, initial, problems } from "./schema";
import { JsonEditor, SchemaForm } from "./schema-form";
import { permits, seesPayload } from "./session";
import { Button, Facts, Hidden } from "./ui";

interface AnswerProps {
  question: Pick<Question, "value" | "response_schema">;
  /** Sends the value that resumes the graph. */
  onAnswer: (value: unknown) => unknown;
}

const WORDS: Record<Decision, string> = { approve: "Approve", edit: "Edit", reject: "Reject", respond: "Respond" };

export function Answer({ question, onAnswer }: AnswerProps) {
  if (!permits("threads.answer")) {
    return (
      <>
        {seesPayload.value ? <Asks value={question.value} /> : <Hidden />}
        <p class="quiet">To answer it, use the key of its owner, or one with the scopes runs:answer and payload:read.</p>
      </>
    );
  }
  return <Form question={question} onAnswer={onAnswer} />;
}

/** The form that the question asks for. Agents write them: one that cannot be shown is answered in JSON. */
function Form({ question, onAnswer }: AnswerProps) {
  const [failure] = useErrorBoundary();
  if (failure !== undefined) return <Free question={question} onAnswer={onAnswer} />;
  return <Asked question={question} onAnswer={onAnswer} />;
}

function Asked({ question, onAnswer }: AnswerProps) {
  const what = asked(question);
  switch (what.kind) {
    case "reviews":
    case "legacy":
      return <Decisions kind={what.kind} reviews={what.reviews} onAnswer={onAnswer} />;
    case "schema":
      return <Formed question={question} schema={what.schema} onAnswer={onAnswer} />;
    default:
      return <Free question={question} onAnswer={onAnswer} />;
  }
}

/** What was asked, where the answer's form does not show it. */
function Asks({ value }: { value: unknown }) {
  return typeof value === "string" ? <p class="asks"><Cut text={value} /></p> : <Values value={value} />;
}

/** An object of plain values as a list of names and values, anything else as a tree. */
function Values({ value }: { value: unknown }) {
  const entries = value && typeof value === "object" && !Array.isArray(value) ? Object.entries(value) : [];
  if (!entries.length || entries.some(([, one]) => one !== null && typeof one === "object")) return <Json value={value} open={3} />;
  return <Facts facts={entries.map(([name, one]) => [visibleText(name), <bdi key={name}><Cut text={String(one)} /></bdi>])} />;
}

function Decisions({ kind, reviews, onAnswer }: { kind: "reviews" | "legacy"; reviews: Review[]; onAnswer: AnswerProps["onAnswer"] }) {
  const [decided, setDecided] = useState<(Decided | undefined)[]>(() => reviews.map(() => undefined));
  const set = (at: number, decision: Decided | undefined) => setDecided(decided.map((one, index) => (index === at ? decision : one)));
  const done = decided.every((one) => one !== undefined);
  const send = (all: Decided[]) => onAnswer(resumeValue(kind, reviews, all));
  const single = reviews.length === 1;
  return (
    <>
      {reviews.map((review, at) => (
        <ReviewOf
          key={at}
          review={review}
          decided={decided[at]}
          onDecide={(decision) => set(at, decision)}
          // One call is decided by one click.
          onSend={single ? (decision) => send([decision]) : undefined}
        />
      ))}
      {!single && (
        <div class="actions">
          <Button kind="primary" disabled={!done} onClick={() => send(decided as Decided[])}>
            Send {reviews.length} decisions
          </Button>
          {reviews.every((review) => review.allowed.includes("approve")) && (
            <Button onClick={() => send(reviews.map(() => ({ type: "approve" })))}>Approve all</Button>
          )}
        </div>
      )}
    </>
  );
}

interface ReviewProps {
  review: Review;
  decided: Decided | undefined;
  onDecide: (decision: Decided | undefined) => void;
  onSend?: (decision: Decided) => unknown;
}

function ReviewOf({ review, decided, onDecide, onSend }: ReviewProps) {
  const [open, setOpen] = useState<Decision>();
  const [args, setArgs] = useState(review.args);
  const [message, setMessage] = useState("");
  const [readable, setReadable] = useState(true);
  const id = useId();
  const decide = (decision: Decided) => {
    if (onSend) return onSend(decision);
    setOpen(undefined);
    onDecide(decision);
  };
  const choose = (type: Decision) => {
    if (type === "approve") return decide({ type });
    setOpen(open === type ? undefined : type);
  };
  return (
    <section class="review">
      <h3>
        <code>{visibleText(review.name)}</code>
        {decided && <span class="quiet"> {WORDS[decided.type].toLowerCase()}</span>}
      </h3>
      {review.description && <p class="asks"><Cut text={review.description} /></p>}
      {open !== "edit" && <Values value={decided?.args ?? review.args} />}
      {open === "edit" && (
        <SchemaOrJson schema={review.argsSchema ?? schemaOf(review.args)} value={args} onChange={(value) => setArgs(value as Review["args"])} onReadable={setReadable} />
      )}
      {(open === "reject" || open === "respond") && (
        <div class="field">
          <label for={id}>{open === "reject" ? "Why (the agent reads it)" : "Response"}</label>
          <textarea id={id} rows={2} value={message} onInput={(event) => setMessage(event.currentTarget.value)} />
        </div>
      )}
      <div class="actions">
        {open && (
          <Button
            kind={open === "reject" ? "danger" : "primary"}
            disabled={(open === "respond" && !message) || !readable}
            onClick={() => decide(open === "edit" ? { type: "edit", args } : { type: open, message: message || undefined })}
          >
            {open === "edit" ? "Approve as edited" : open === "reject" ? "Reject" : "Send response"}
          </Button>
        )}
        {review.allowed
          .filter((type) => type !== open)
          .map((type) => (
            <Button key={type} kind={type === "approve" && !open ? "primary" : "plain"} onClick={() => choose(type)}>
              {WORDS[type]}
              {type === "approve" ? "" : "…"}
            </Button>
          ))}
        {open && <Button onClick={() => setOpen(undefined)}>Back</Button>}
      </div>
    </section>
  );
}

/** A schema that has the fields of *args*, by the kinds of their values. */
function schemaOf(args: Record<string, unknown>): Schema {
  const kinds: Record<string, string> = { string: "string", number: "number", boolean: "boolean" };
  return {
    type: "object",
    properties: Object.fromEntries(
      Object.entries(args).map(([name, value]) => [name, { title: name, type: kinds[typeof value] } as Schema]),
    ),
    required: Object.keys(args),
  };
}

function SchemaOrJson({ schema, value, onChange, onReadable }: { schema: Schema; value: unknown; onChange: (value: unknown) => void; onReadable: (readable: boolean) => void }) {
  if (Object.keys(schema.properties ?? {}).length) return <SchemaForm schema={schema} value={value} onChange={onChange} />;
  return <JsonEditor label="Arguments" value={value} onChange={onChange} onReadable={onReadable} />;
}

function Formed({ question, schema, onAnswer }: AnswerProps & { schema: Schema }) {
  const [value, setValue] = useState<unknown>(() => initial(schema, schema));
  const [shown, setShown] = useState<ReadonlyMap<string, string>>();
  const send = () => {
    const found = problems(schema, value, schema);
    setShown(found.size ? found : undefined);
    return found.size ? undefined : onAnswer(value);
  };
  return (
    <>
      <Asks value={withoutSchema(question.value)} />
      <SchemaForm schema={schema} value={value} onChange={setValue} problems={shown} />
      <div class="actions">
        <Button kind="primary" onClick={send}>
          Answer
        </Button>
      </div>
    </>
  );
}

function withoutSchema(value: unknown): unknown {
  if (!value || typeof value !== "object" || Array.isArray(value)) return value;
  const { response_schema: _, ...rest } = value as Record<string, unknown>;
  return rest;
}

function Free({ question, onAnswer }: AnswerProps) {
  const [value, setValue] = useState<unknown>("");
  const [readable, setReadable] = useState(true);
  const [json, setJson] = useState(false);
  const id = useId();
  return (
    <>
      <Asks value={question.value} />
      {json ? (
        <JsonEditor label="Answer, as JSON" value={value} onChange={setValue} onReadable={setReadable} />
      ) : (
        <div class="field">
          <label for={id}>Answer</label>
          <textarea id={id} rows={2} value={String(value ?? "")} onInput={(event) => setValue(event.currentTarget.value)} />
        </div>
      )}
      <div class="actions">
        <Button kind="primary" disabled={!readable || value === undefined || value === ""} onClick={() => onAnswer(value)}>
          Answer
        </Button>
        <Button
          onClick={() => {
            setJson(!json);
            setReadable(true);
          }}
        >
          {json ? "As text" : "As JSON"}
        </Button>
      </div>
    </>
  );
}
