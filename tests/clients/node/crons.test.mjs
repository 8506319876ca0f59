import assert from "node:assert/strict";
import { test } from "node:test";
import { NOWHERE, connect } from "./kit.mjs";

const client = connect();
const YEARLY = "0 0 1 1 *";

test("a cron is made, found, changed, counted and deleted", async () => {
  const [{ assistant_id: assistantId }] = await client.assistants.search({ graphId: "steps", metadata: { created_by: "system" } });
  const made = await client.crons.create(assistantId, { schedule: YEARLY, timezone: "Europe/Berlin", input: { steps: 1 }, metadata: { js: true } });
  const [found] = await client.crons.search({ metadata: { js: true }, limit: 10 });
  assert.deepEqual([found.cron_id, found.schedule, found.enabled], [made.cron_id, YEARLY, true]);
  assert.ok(new Date(found.next_run_date) > new Date());
  const changed = await client.crons.update(made.cron_id, { schedule: "30 4 * * 1", enabled: false });
  assert.deepEqual([changed.schedule, changed.enabled], ["30 4 * * 1", false]);
  assert.equal(await client.crons.count({ metadata: { js: true } }), 1);
  await client.crons.delete(made.cron_id);
  assert.equal(await client.crons.count({ metadata: { js: true } }), 0);
});

test("a cron of a thread knows its thread", async () => {
  const { thread_id } = await client.threads.create();
  const made = await client.crons.createForThread(thread_id, "steps", { schedule: YEARLY, input: { steps: 1 } });
  assert.equal(made.thread_id, thread_id);
  const found = await client.crons.search({ threadId: thread_id });
  assert.deepEqual(found.map((one) => one.cron_id), [made.cron_id]);
  await client.crons.delete(made.cron_id);
});

test("a schedule that means nothing and a cron that is not there are refused", async () => {
  await assert.rejects(client.crons.create("steps", { schedule: "whenever" }), { status: 422 });
  await assert.rejects(client.crons.delete(NOWHERE), { status: 404 });
});
