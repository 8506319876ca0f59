import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { connect, human } from "./kit.mjs";

const client = connect();

test("a thread is made once, read, changed and deleted", async () => {
  const threadId = randomUUID();
  const made = await client.threads.create({ threadId, metadata: { topic: "a" } });
  assert.deepEqual([made.thread_id, made.status, made.metadata.topic], [threadId, "idle", "a"]);
  await assert.rejects(client.threads.create({ threadId }), { status: 409 });
  assert.equal((await client.threads.create({ threadId, ifExists: "do_nothing" })).thread_id, threadId);
  const changed = await client.threads.update(threadId, { metadata: { more: 1 } });
  assert.deepEqual(changed.metadata, { topic: "a", more: 1 });
  assert.deepEqual((await client.threads.get(threadId)).metadata, changed.metadata);
  await client.threads.delete(threadId);
  await assert.rejects(client.threads.get(threadId), { status: 404 });
});

test("a change that wants no answer gets none", async () => {
  const { thread_id } = await client.threads.create();
  assert.equal(await client.threads.update(thread_id, { metadata: { a: 1 }, returnMinimal: true }), undefined);
  assert.equal((await client.threads.get(thread_id)).metadata.a, 1);
});

test("threads are found by metadata, status, values and id, sorted, selected and counted", async () => {
  const mark = randomUUID();
  const [first, second] = [
    await client.threads.create({ metadata: { mark } }),
    await client.threads.create({ metadata: { mark, n: 2 } }),
  ];
  await client.runs.wait(second.thread_id, "steps", { input: { steps: 1 } });
  const found = await client.threads.search({ metadata: { mark }, sortBy: "created_at", sortOrder: "asc" });
  assert.deepEqual(found.map((one) => one.thread_id), [first.thread_id, second.thread_id]);
  assert.deepEqual(found[1].values, { steps: 1, done: [0] });
  assert.equal(found[1].metadata.graph_id, "steps");
  const selected = await client.threads.search({ ids: [first.thread_id], select: ["thread_id", "status"] });
  assert.deepEqual(selected, [{ thread_id: first.thread_id, status: "idle" }]);
  assert.equal(await client.threads.count({ metadata: { mark } }), 2);
  assert.equal((await client.threads.search({ metadata: { mark }, values: { steps: 1 } })).length, 1);
  assert.equal((await client.threads.search({ metadata: { mark }, limit: 1, offset: 1 })).length, 1);
  assert.deepEqual(await client.threads.search({ metadata: { mark }, status: "busy" }), []);
});

test("state is read, written as a node, forked, and its history paged", async () => {
  const { thread_id } = await client.threads.create();
  await client.runs.wait(thread_id, "steps", { input: { steps: 2 } });
  const head = await client.threads.getState(thread_id);
  assert.deepEqual([head.values.done, head.next], [[0, 1], []]);
  const history = await client.threads.getHistory(thread_id, { limit: 10 });
  assert.deepEqual(history.map((one) => one.values.done.length), [2, 1, 0, 0]);
  const older = await client.threads.getHistory(thread_id, { limit: 10, before: { configurable: history[1].checkpoint } });
  assert.deepEqual(older.map((one) => one.checkpoint), history.slice(2).map((one) => one.checkpoint));
  const at = await client.threads.getState(thread_id, history[1].checkpoint.checkpoint_id);
  assert.deepEqual(at.values.done, [0]);
  assert.deepEqual((await client.threads.getState(thread_id, history[1].checkpoint)).values.done, [0]);
  const written = await client.threads.updateState(thread_id, {
    values: { done: [7] },
    checkpoint: history[1].checkpoint,
    asNode: "step",
  });
  const forked = await client.threads.getState(thread_id);
  assert.equal(forked.checkpoint.checkpoint_id, written.configurable.checkpoint_id);
  assert.deepEqual(forked.values.done, [0, 7]);
  assert.equal(forked.parent_checkpoint.checkpoint_id, history[1].checkpoint.checkpoint_id);
});

test("a thread is born with a history that its maker brings", async () => {
  const supersteps = [
    { updates: [{ values: human("hi"), asNode: "__input__" }] },
    { updates: [{ values: human("hi"), asNode: "__start__" }] },
    { updates: [{ values: { messages: [{ type: "ai", content: "there" }] }, asNode: "answer" }] },
  ];
  const { thread_id } = await client.threads.create({ graphId: "chat", supersteps });
  const { values, next } = await client.threads.getState(thread_id);
  assert.deepEqual(values.messages.map((one) => one.content).slice(-1), ["there"]);
  assert.deepEqual(next, []);
});
