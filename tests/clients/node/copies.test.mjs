import assert from "node:assert/strict";
import { test } from "node:test";
import { NOWHERE, connect, human } from "./kit.mjs";

const client = connect();

test("a copy has the state and the history of its thread, and a life of its own", async () => {
  const { thread_id } = await client.threads.create();
  await client.runs.wait(thread_id, "chat", { input: human("hi") });
  const copy = await client.threads.copy(thread_id);
  assert.notEqual(copy.thread_id, thread_id);
  const [original, copied] = await Promise.all([thread_id, copy.thread_id].map((id) => client.threads.getHistory(id, { limit: 10 })));
  assert.deepEqual(copied.map((one) => one.values), original.map((one) => one.values));
  await client.runs.wait(copy.thread_id, "chat", { input: human("more") });
  assert.equal((await client.threads.getState(thread_id)).values.messages.length, 2);
  assert.equal((await client.threads.getState(copy.thread_id)).values.messages.length, 4);
  await assert.rejects(client.threads.copy(NOWHERE), (error) => [404, 409].includes(error.status));
});

test("threads are pruned in bulk, and a time to live is taken", async () => {
  const { thread_id } = await client.threads.create({ ttl: 60 });
  const { pruned_count } = await client.threads.prune([thread_id, NOWHERE]);
  assert.equal(pruned_count, 1);
  await assert.rejects(client.threads.get(thread_id), { status: 404 });
});

test("a search extracts what a list shows from the values", async () => {
  const { thread_id } = await client.threads.create();
  await client.runs.wait(thread_id, "steps", { input: { steps: 1 } });
  const [found] = await client.threads.search({ ids: [thread_id], extract: { first: "values.done[0]" } });
  assert.deepEqual(found.extracted, { first: 0 });
});
