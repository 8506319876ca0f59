import assert from "node:assert/strict";
import { test } from "node:test";
import { connect, fresh, until } from "./kit.mjs";

const client = connect();

test("a thread's stream shows the runs that come", async () => {
  const threadId = await fresh(client);
  const leaving = new AbortController();
  const stream = client.threads.joinStream(threadId, { lastEventId: "-", signal: leaving.signal });
  const run = await client.runs.create(threadId, "steps", { input: { steps: 1 } });
  const seen = await until(stream, (part) => part.event === "metadata" && part.data.status === "run_done");
  assert.equal(seen.at(-1).data.run_id, run.run_id);
  assert.ok(seen.some((part) => part.event === "values"));
  leaving.abort();
});
