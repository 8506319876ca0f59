// The streaming protocol, through `client.threads.stream`.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { all, connect, fresh, human, open, proxy, until } from "./kit.mjs";

const client = connect();

async function using(thread, what) {
  try {
    return await what(thread);
  } finally {
    await thread.close();
  }
}

const ended = async (threadId) => {
  const [run] = await client.runs.list(threadId);
  await client.runs.join(threadId, run.run_id);
  return client.runs.get(threadId, run.run_id);
};

test("a run is started on a thread that the client names, and its output comes", async () => {
  const threadId = randomUUID();
  await using(client.threads.stream(threadId, { assistantId: "chat" }), async (thread) => {
    const { run_id } = await thread.run.start({ input: human("hi there") });
    const output = await thread.output;
    assert.equal(output.messages.length, 2);
    assert.equal((await client.runs.get(threadId, run_id)).status, "success");
  });
});

test("what is opened before the first run creates the thread is told of it", async () => {
  await using(client.threads.stream(randomUUID(), { assistantId: "chat" }), async (thread) => {
    const values = all(thread.values);
    const lifecycle = (await thread.subscribe(["lifecycle"]))[Symbol.asyncIterator]();
    await thread.run.start({ input: human("hi there") });
    await until(lifecycle, (event) => event.params.data.event === "completed");
    assert.equal((await values).at(-1).messages.length, 2);
  });
});

test("messages stream as text, in order", async () => {
  await using(client.threads.stream(await fresh(client), { assistantId: "chat" }), async (thread) => {
    await thread.run.start({ input: human("a b c") });
    for await (const message of thread.messages) {
      assert.equal(await message.text, "echo: a b c");
      return;
    }
  });
});

test("every channel that is subscribed to delivers", async () => {
  const threadId = await fresh(client);
  await using(client.threads.stream(threadId, { assistantId: "writer" }), async (thread) => {
    const channels = ["values", "updates", "custom", "tasks", "checkpoints", "lifecycle"];
    const subscription = await thread.subscribe(channels);
    await thread.run.start({ input: {} });
    const seen = new Set();
    const done = (event) => (seen.add(event.method), event.method === "lifecycle" && event.params.data.event === "completed");
    await until(subscription[Symbol.asyncIterator](), done);
    assert.deepEqual([...seen].sort(), channels.sort());
  });
});

test("a question is asked, and answered by its id", async () => {
  const threadId = await fresh(client);
  await using(client.threads.stream(threadId, { assistantId: "approval" }), async (thread) => {
    const subscription = (await thread.subscribe(["input", "values"]))[Symbol.asyncIterator]();
    await thread.run.start({ input: { topic: "x" } });
    const asked = (await until(subscription, (event) => event.method === "input.requested")).at(-1).params;
    assert.deepEqual(asked.data.payload, { question: "approve?", topic: "x" });
    const answer = { namespace: asked.namespace, interrupt_id: asked.data.interrupt_id, response: "yes" };
    await ended(threadId);
    await thread.input.respond(answer);
    assert.equal((await ended(threadId)).status, "success");
    assert.deepEqual((await client.threads.getState(threadId)).values.answers, ["yes"]);
    await assert.rejects(thread.input.respond(answer), (error) => ["no_such_interrupt", "no_such_run"].includes(error.code));
  });
});

test("a run is forked from a checkpoint", async () => {
  const threadId = await fresh(client);
  await client.runs.wait(threadId, "chat", { input: human("one") });
  const first = (await client.threads.getHistory(threadId, { limit: 10 })).at(-1);
  await using(client.threads.stream(threadId, { assistantId: "chat" }), async (thread) => {
    await thread.run.start({ input: human("two"), forkFrom: first.checkpoint.checkpoint_id });
    await ended(threadId);
    assert.equal((await client.threads.getState(threadId)).values.messages.length, 2);
  });
});

test("an unknown assistant is refused", async () => {
  await using(client.threads.stream(randomUUID(), { assistantId: "nothing" }), async (thread) => {
    await assert.rejects(thread.run.start({ input: {} }), /nothing/);
  });
});

test("a connection that breaks is made again, and the whole run is seen once", async () => {
  const between = await proxy();
  const threadId = await fresh(client);
  const options = { assistantId: "chat", reconnectDelayMs: () => 10 };
  try {
    await using(connect(between.url).threads.stream(threadId, options), async (thread) => {
      const subscription = (await thread.subscribe(["messages", "lifecycle"]))[Symbol.asyncIterator]();
      await thread.run.start({ input: human("torn @protocol mended") });
      const isDelta = (event) => event.method === "messages" && event.params.data.event === "content-block-delta";
      const seen = await until(subscription, (event) => isDelta(event) && event.params.data.delta.text === " torn");
      between.cut();
      await open(client, "protocol");
      await until(subscription, (event) => event.method === "lifecycle" && event.params.data.event === "completed", seen);
      const text = seen.filter(isDelta).map((event) => event.params.data.delta.text).join("");
      assert.equal(text, "echo: torn @protocol mended");
    });
  } finally {
    between.close();
  }
});
