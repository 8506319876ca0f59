import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { NOWHERE, all, begun, connect, fresh, human, open, spoken, stuck } from "./kit.mjs";

const client = connect();

test("a run is created, joined, read, listed and deleted", async () => {
  const threadId = await fresh(client);
  let created;
  const run = await client.runs.create(threadId, "chat", {
    input: human("hi"),
    metadata: { why: "test" },
    onRunCreated: (params) => (created = params),
  });
  assert.deepEqual(created, { run_id: run.run_id, thread_id: threadId });
  const values = await client.runs.join(threadId, run.run_id);
  assert.equal(values.messages.at(-1).content, "echo: hi");
  const read = await client.runs.get(threadId, run.run_id);
  assert.deepEqual([read.status, read.metadata.why], ["success", "test"]);
  assert.deepEqual((await client.runs.list(threadId, { status: "success" })).map((one) => one.run_id), [run.run_id]);
  assert.deepEqual(await client.runs.list(threadId, { select: ["run_id"], limit: 1 }), [{ run_id: run.run_id }]);
  await client.runs.delete(threadId, run.run_id);
  await assert.rejects(client.runs.get(threadId, run.run_id), { status: 404 });
});

test("wait gives the last values, and raises what the run raised", async () => {
  const threadId = await fresh(client);
  assert.deepEqual((await client.runs.wait(threadId, "steps", { input: { steps: 2 } })).done, [0, 1]);
  await assert.rejects(client.runs.wait(threadId, "failing", { input: {} }), /ValueError: boom/);
  const shown = await client.runs.wait(threadId, "failing", { input: {}, raiseError: false });
  assert.equal(shown.__error__.error, "ValueError");
});

test("a stateless run leaves nothing behind", async () => {
  const values = await client.runs.wait(null, "steps", { input: { steps: 1 } });
  assert.deepEqual(values.done, [0]);
  const parts = await all(client.runs.stream(null, "chat", { input: human("hi"), streamMode: "messages-tuple" }));
  assert.equal(spoken(parts), "echo: hi");
  const run = await client.runs.create(null, "steps", { input: { steps: 1 } });
  assert.equal(run.status, "pending");
});

test("a thread that does not exist is refused, or made when asked for", async () => {
  await assert.rejects(client.runs.create(NOWHERE, "chat", { input: human("hi") }), { status: 404 });
  const threadId = randomUUID();
  const values = await client.runs.wait(threadId, "chat", { input: human("hi"), ifNotExists: "create" });
  assert.equal(values.messages.length, 2);
});

test("reject, enqueue, interrupt and rollback do as they say on a busy thread", async () => {
  const threadId = await fresh(client);
  const first = await begun(client, await stuck(client, threadId));
  await assert.rejects(client.runs.create(threadId, "chat", { input: human("b"), multitaskStrategy: "reject" }), { status: 409 });
  const queued = await client.runs.create(threadId, "steps", { input: { steps: 1 }, multitaskStrategy: "enqueue" });
  assert.equal((await client.runs.get(threadId, queued.run_id)).status, "pending");
  await client.runs.cancel(threadId, queued.run_id);
  const second = await begun(client, await stuck(client, threadId, { multitaskStrategy: "interrupt" }));
  assert.equal((await client.runs.get(threadId, first.run_id)).status, "interrupted");
  const values = await client.runs.wait(threadId, "chat", { input: human("c"), multitaskStrategy: "rollback" });
  await assert.rejects(client.runs.get(threadId, second.run_id), { status: 404 });
  assert.equal(values.messages.at(-1).content, "echo: c");
  assert.equal(values.messages.filter((one) => one.type === "human").length, 2);
});

test("a cancelled run has stopped when the answer says so", async () => {
  const threadId = await fresh(client);
  const run = await begun(client, await stuck(client, threadId));
  await client.runs.cancel(threadId, run.run_id, true, "interrupt");
  assert.equal((await client.runs.get(threadId, run.run_id)).status, "interrupted");
  const again = await begun(client, await stuck(client, threadId));
  await client.runs.cancel(threadId, again.run_id, true, "rollback");
  await assert.rejects(client.runs.get(threadId, again.run_id), { status: 404 });
});

test("a delayed run is pending until it is due", async () => {
  const threadId = await fresh(client);
  const run = await client.runs.create(threadId, "chat", { input: human("later"), afterSeconds: 3600 });
  assert.equal((await client.runs.get(threadId, run.run_id)).status, "pending");
  await client.runs.cancel(threadId, run.run_id);
  assert.equal((await client.runs.get(threadId, run.run_id)).status, "interrupted");
});

test("an interrupt is seen, and answered with a command", async () => {
  const threadId = await fresh(client);
  const paused = await client.runs.wait(threadId, "approval", { input: { topic: "x" } });
  assert.deepEqual(paused.__interrupt__[0].value, { question: "approve?", topic: "x" });
  const thread = await client.threads.get(threadId);
  assert.equal(thread.status, "interrupted");
  assert.equal(Object.values(thread.interrupts)[0][0].id, paused.__interrupt__[0].id);
  const values = await client.runs.wait(threadId, "approval", { command: { resume: "yes" } });
  assert.deepEqual([values.answers, values.decided], [["yes"], "decided on 1"]);
});

test("two interrupts are answered by their ids", async () => {
  const threadId = await fresh(client);
  const { __interrupt__: open } = await client.runs.wait(threadId, "approvals", { input: { topic: "x" } });
  const resume = Object.fromEntries(open.map((one, index) => [one.id, index]));
  const values = await client.runs.wait(threadId, "approvals", { command: { resume } });
  assert.equal(values.decided, "decided on 2");
});

test("breakpoints stop a run before and after a node, and null input goes on", async () => {
  const threadId = await fresh(client);
  await client.runs.wait(threadId, "steps", { input: { steps: 2 }, interruptBefore: ["step"] });
  assert.deepEqual((await client.threads.getState(threadId)).next, ["step"]);
  const values = await client.runs.wait(threadId, "steps", { input: null, interruptAfter: ["step"] });
  assert.deepEqual(values.done, [0]);
  assert.deepEqual((await client.runs.wait(threadId, "steps", { input: null })).done, [0, 1]);
});

test("a run forks from a checkpoint, with input and without", async () => {
  const threadId = await fresh(client);
  await client.runs.wait(threadId, "chat", { input: human("one") });
  const history = await client.threads.getHistory(threadId, { limit: 10 });
  const edited = await client.runs.wait(threadId, "chat", { input: human("two"), checkpoint: history.at(-1).checkpoint });
  assert.deepEqual(edited.messages.map((one) => one.content), ["two", "echo: two"]);
  const redone = await client.runs.wait(threadId, "chat", { checkpointId: history.at(-2).checkpoint.checkpoint_id });
  assert.deepEqual(redone.messages.map((one) => one.content), ["one", "echo: one"]);
});

test("what waits at a gate goes on when it opens", async () => {
  const threadId = await fresh(client);
  const run = await begun(client, await client.runs.create(threadId, "chat", { input: human("a @runs b") }));
  await open(client, "runs");
  assert.equal((await client.runs.join(threadId, run.run_id)).messages.at(-1).content, "echo: a @runs b");
});

test("a run keeps only its last checkpoint, by either name of that option", async () => {
  for (const option of [{ durability: "exit" }, { checkpointDuring: false }]) {
    const threadId = await fresh(client);
    await client.runs.wait(threadId, "steps", { input: { steps: 3 }, ...option });
    assert.equal((await client.threads.getHistory(threadId, { limit: 10 })).length, 1);
  }
});
