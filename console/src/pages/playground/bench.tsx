import { useEffect, useState } from "preact/hooks";
import { Answer } from "../../lib/answer";
import { get, path, post } from "../../lib/api";
import { AssistantGraph } from "../../lib/assistant-graph";
import { type Conversation, begin, fold } from "../../lib/chat";
import { Chat } from "../../lib/chat-view";
import { type Work, follow as followNodes } from "../../lib/graph";
import { useLive } from "../../lib/live";
import { type Schema, initial, problems } from "../../lib/schema";
import { SchemaForm } from "../../lib/schema-form";
import { follow } from "../../lib/stream";
import { AsCode, Button, Chip, Empty, Loaded, Status } from "../../lib/ui";
import type { Assistant } from "../playground";
import { MessageBox } from "./message";
import { OptionFields } from "./options";
import { OPTIONS, type Options, type Picture, type Started, hasMessages, humanMessage, requestOf, start } from "./start";

interface BenchProps {
  assistant: Assistant;
  threadId: string | undefined;
  onThread: (threadId: string | undefined) => void;
}

interface Schemas {
  input_schema: Schema | null;
  context_schema: Schema | null;
}

export function Bench({ assistant, threadId, onThread }: BenchProps) {
  const schemas = useLive((stop) => get<Schemas>(path("/assistants/{}/schemas", assistant.assistant_id), {}, stop), [assistant.assistant_id], null);
  const [started, setStarted] = useState<Started>();
  const watched = useWatched(started);
  const run = async (body: Record<string, unknown>) => {
    const next = await start(threadId, body);
    onThread(next.thread_id);
    setStarted(next);
  };
  const active = started !== undefined && !watched.conversation.ended;
  const questions = active ? [] : watched.conversation.questions;
  return (
    <div class="playground">
      <section class="playground-chat" aria-label="Run">
        {started ? (
          <>
            <p class="head-line">
              <span>
                <Status status={questions.length ? "paused" : (watched.conversation.ended?.status ?? "running")} /> run <Chip to={["run", started.run_id]} id={started.run_id} />
                &ensp;on thread <Chip to={["thread", started.thread_id]} id={started.thread_id} />
              </span>
              <span class="actions">
                {active && (
                  <Button onClick={() => post(path("/threads/{}/runs/{}/cancel", started.thread_id, started.run_id))}>Cancel</Button>
                )}
                <Button
                  onClick={() => {
                    setStarted(undefined);
                    onThread(undefined);
                  }}
                >
                  New thread
                </Button>
              </span>
            </p>
            <Chat conversation={{ ...watched.conversation, questions: [] }} active={active} />
            {questions.map((question) => (
              <section key={question.id} class="card question" aria-label="Question">
                <Answer
                  question={{ value: question.value, response_schema: question.response_schema as Schema }}
                  onAnswer={(value) => run({ ...requestOf(assistant.assistant_id, null, undefined, OPTIONS), command: { resume: { [question.id]: value } } })}
                />
              </section>
            ))}
          </>
        ) : (
          <Empty>{threadId ? `The next run goes on on thread ${threadId}.` : "The first run makes a thread."}</Empty>
        )}
        <Loaded live={schemas} rows={3}>
          {(known) => <Input assistant={assistant} schemas={known} threadId={threadId} busy={active} folded={questions.length > 0} onRun={run} />}
        </Loaded>
      </section>
      <aside class="playground-graph" aria-label="Graph">
        <AssistantGraph assistantId={assistant.assistant_id} work={watched.work} />
      </aside>
    </div>
  );
}

interface Watched {
  conversation: Conversation;
  work: Work;
}

const NOTHING: Watched = { conversation: begin(null), work: {} };

/** The run as its events come. */
function useWatched(started: Started | undefined): Watched {
  const [watched, set] = useState<Watched>(NOTHING);
  useEffect(() => {
    set(NOTHING);
    if (!started) return;
    return follow(started.run_id, (items) =>
      set((was) => {
        const now = Date.now();
        return {
          conversation: items.reduce(fold, was.conversation),
          work: items.reduce((work, item) => followNodes(work, item, now), was.work),
        };
      }),
    );
  }, [started?.run_id]);
  return watched;
}

interface InputProps {
  assistant: Assistant;
  schemas: Schemas;
  threadId: string | undefined;
  busy: boolean;
  /** Whether something else is asked for first. */
  folded: boolean;
  onRun: (body: Record<string, unknown>) => Promise<void>;
}

function Input({ assistant, schemas, threadId, busy, folded, onRun }: InputProps) {
  const schema = schemas.input_schema ?? {};
  const contextSchema = schemas.context_schema;
  const chats = hasMessages(schema);
  const without = chats ? ["messages"] : [];
  const [input, setInput] = useState<unknown>(() => initial(schema, schema) ?? {});
  const [context, setContext] = useState<unknown>(assistant.context);
  const [options, setOptions] = useState<Options>(OPTIONS);
  const [shown, setShown] = useState<ReadonlyMap<string, string>>();
  const body = (given: unknown) => requestOf(assistant.assistant_id, given, contextSchema ? context : undefined, options);
  const run = (given: unknown) => {
    const found = chats ? new Map<string, string>() : problems(schema, given, schema);
    setShown(found.size ? found : undefined);
    if (found.size) throw new Error("The input is not whole yet: see the fields.");
    return onRun(body(given));
  };
  const rest = Object.keys(schema.properties ?? {}).some((name) => !without.includes(name));
  const example = JSON.stringify(body(chats ? { messages: [humanMessage("…", [])] } : input));
  const asCode = (
    <AsCode
      http={`POST /threads/${threadId ?? "{thread_id}"}/runs ${example}`}
      cli={`runlane runs start ${assistant.name} --input '${JSON.stringify(chats ? { messages: [humanMessage("…", [])] } : input)}'`}
      python={`client.runs.create(${threadId ? `"${threadId}"` : "thread_id"}, "${assistant.assistant_id}", input=…)`}
    />
  );
  return (
    <>
      {rest && (
        <details open={!chats && !folded}>
          <summary>{chats ? "More input" : "Input"}</summary>
          <SchemaForm schema={schema} value={input} onChange={setInput} problems={shown} without={without} />
        </details>
      )}
      {!rest && !chats && <SchemaForm schema={schema} value={input} onChange={setInput} problems={shown} />}
      {contextSchema && Object.keys(contextSchema.properties ?? {}).length > 0 && (
        <details>
          <summary>Context</summary>
          <SchemaForm schema={contextSchema} value={context} onChange={setContext} />
        </details>
      )}
      <OptionFields options={options} onChange={setOptions} />
      {chats ? (
        <MessageBox
          busy={busy}
          onSend={(text: string, pictures: Picture[]) => run({ ...(input as object), messages: [humanMessage(text, pictures)] })}
        >
          {asCode}
        </MessageBox>
      ) : (
        <div class="actions">
          <Button kind="primary" onClick={() => run(input)}>
            Run
          </Button>
          {asCode}
        </div>
      )}
    </>
  );
}
