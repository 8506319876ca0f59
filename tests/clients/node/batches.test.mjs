import assert from "node:assert/strict";
import { test } from "node:test";
import { NOWHERE, begun, connect, fresh, stuck } from "./kit.mjs";

const client = connect();

test("many runs are cancelled at once, by id and by status", async () => {
  const threadId = await fresh(client);
  const running = await begun(client, await stuck(client, threadId));
  const queued = await stuck(client, threadId);
  await client.runs.cancelMany({ threadId, runIds: [running.run_id, queued.run_id] });
  for (const run of [running, queued]) {
    await client.runs.join(threadId, run.run_id).catch(() => {});
    assert.equal((await client.runs.get(threadId, run.run_id)).status, "interrupted");
  }
});

test("a batch starts all of its runs, or none", async () => {
  const runs = await client.runs.createBatch([1, 2].map((steps) => ({ assistantId: "steps", input: { steps }, onCompletion: "keep" })));
  assert.equal(new Set(runs.map((one) => one.run_id)).size, 2);
  await assert.rejects(client.runs.createBatch([{ assistantId: "steps" }, { assistantId: NOWHERE }]), { status: 404 });
});
