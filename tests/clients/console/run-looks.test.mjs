import { test } from "node:test";
import { client, look } from "./kit.mjs";
import { say, start } from "./runs.mjs";

test("the page of a run fits every screen", async () => {
  const run = await start("tools", say("add"));
  const asks = await start("approvals", { topic: "x" });
  const [, , older] = await client().threads.getHistory(run.thread_id);
  await look("run", `run/${run.run_id}`, {}, ".call-state");
  await look("run-asks", `run/${asks.run_id}`, {}, ".run-asks textarea");
  await look("run-events", `run/${run.run_id}?tab=events&at=4`, {}, ".event-open .json");
  await look("run-state", `run/${run.run_id}?tab=state&against=${older.checkpoint.checkpoint_id}`, {}, ".found .json");
  await look("run-checkpoints", `run/${run.run_id}?tab=checkpoints`, {}, ".lanes");
});
