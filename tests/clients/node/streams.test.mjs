import assert from "node:assert/strict";
import { test } from "node:test";
import { all, connect, fresh, human, open, proxy, spoken, until } from "./kit.mjs";

const client = connect();
const MODES = ["values", "updates", "messages-tuple", "events", "debug", "tasks", "checkpoints", "custom"];

test("each stream mode is delivered under its own name, and all together", async () => {
  const threadId = await fresh(client);
  for (const streamMode of MODES) {
    const parts = await all(client.runs.stream(threadId, "nested", { input: human("hi"), streamMode, streamSubgraphs: false }));
    const names = new Set(parts.map((part) => part.event));
    assert.ok(names.has("metadata"));
    if (streamMode !== "custom" && streamMode !== "messages-tuple") assert.ok(names.has(streamMode), `${streamMode}: ${[...names]}`);
  }
  const parts = await all(client.runs.stream(threadId, "chat", { input: human("hi"), streamMode: MODES }));
  const names = new Set(parts.map((part) => part.event));
  for (const name of ["values", "updates", "messages", "events", "debug", "tasks", "checkpoints"]) assert.ok(names.has(name), name);
  assert.equal(spoken(parts), "echo: hi");
});

test("what a node writes comes as custom", async () => {
  const parts = await all(client.runs.stream(await fresh(client), "writer", { input: {}, streamMode: "custom" }));
  assert.deepEqual(parts.filter((part) => part.event === "custom").map((part) => part.data), [{ progress: 1 }, "half"]);
});

test("messages come in parts that grow, and as a whole when they are not streamed", async () => {
  const parts = await all(client.runs.stream(await fresh(client), "chat", { input: human("a b"), streamMode: "messages" }));
  const partial = parts.filter((part) => part.event === "messages/partial").map((part) => part.data[0].content);
  assert.deepEqual(partial.slice(0, 3), ["echo:", "echo: a", "echo: a b"]);
  assert.ok(parts.some((part) => part.event === "messages/metadata"));
});

test("subgraphs stream under their namespace", async () => {
  const parts = await all(client.runs.stream(await fresh(client), "nested", { input: human("hi"), streamMode: "updates", streamSubgraphs: true }));
  assert.ok(parts.some((part) => part.event.startsWith("updates|child:")));
});

test("an error is told in the stream", async () => {
  const parts = await all(client.runs.stream(await fresh(client), "failing", { input: {} }));
  assert.deepEqual(parts.find((part) => part.event === "error").data, { error: "ValueError", message: "boom" });
});

test("the caller learns the run's id before its first event", async () => {
  const threadId = await fresh(client);
  let created;
  const stream = client.runs.stream(threadId, "steps", { input: { steps: 1 }, onRunCreated: (params) => (created = params) });
  const first = await stream.next();
  assert.deepEqual(created, { run_id: first.value.data.run_id, thread_id: threadId });
  await all(stream);
});

test("a stream is read again from the start, and from where a reader stopped", async () => {
  const threadId = await fresh(client);
  const run = await client.runs.create(threadId, "chat", { input: human("a b c"), streamMode: ["messages-tuple"], streamResumable: true });
  const whole = await all(client.runs.joinStream(threadId, run.run_id, { lastEventId: "-1" }));
  assert.equal(spoken(whole), "echo: a b c");
  const ids = whole.map((part) => part.id).filter(Boolean);
  assert.equal(new Set(ids).size, ids.length);
  const middle = whole.findIndex((part) => part.event === "messages" && part.data[0].content === " a");
  const rest = await all(client.runs.joinStream(threadId, run.run_id, { lastEventId: whole[middle].id }));
  assert.equal(spoken(rest), " b c");
});

test("several modes are asked for when a run is joined", async () => {
  const threadId = await fresh(client);
  const run = await client.runs.create(threadId, "chat", { input: human("a"), streamMode: ["values", "updates", "messages-tuple"] });
  const parts = await all(client.runs.joinStream(threadId, run.run_id, { lastEventId: "-1", streamMode: ["values", "updates"] }));
  const names = new Set(parts.map((part) => part.event));
  assert.ok(names.has("values") && names.has("updates") && !names.has("messages"), [...names].join());
});

for (const resumable of [true, false]) {
  test(`a stream that is cut goes on without loss or repetition${resumable ? "" : ", though nobody asked for resumable"}`, async () => {
    const between = await proxy();
    const name = `cut-${resumable}`;
    const cut = connect(between.url, { callerOptions: { maxRetries: 3 } });
    try {
      const stream = cut.runs.stream(await fresh(client), "chat", {
        input: human(`one two @${name} three four`),
        streamMode: ["messages-tuple"],
        streamResumable: resumable,
        onDisconnect: "continue",
      });
      const seen = await until(stream, (part) => part.event === "messages" && part.data[0].content === " two");
      between.cut();
      await open(client, name);
      seen.push(...(await all(stream)));
      assert.equal(spoken(seen), `echo: one two @${name} three four`);
      assert.ok(between.connections() >= 2);
    } finally {
      between.close();
    }
  });
}

test("a reader that leaves cancels its run when that was the deal", async () => {
  const threadId = await fresh(client);
  const leaving = new AbortController();
  const stream = client.runs.stream(threadId, "chat", {
    input: human("hold @never on"),
    streamMode: ["messages-tuple"],
    onDisconnect: "cancel",
    signal: leaving.signal,
  });
  const [{ data }] = await until(stream, (part) => part.event === "messages");
  leaving.abort();
  await stream.return?.().catch(() => {});
  const run = await client.runs.join(threadId, data.run_id).then(() => client.runs.get(threadId, data.run_id));
  assert.equal(run.status, "interrupted");
});
