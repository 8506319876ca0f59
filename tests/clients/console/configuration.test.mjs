import { test } from "node:test";
import { KEYS, client, look, visit } from "./kit.mjs";

test("limits are shown with what uses them", async () => {
  const open = client();
  const { thread_id: thread } = await open.threads.create();
  const input = { messages: [{ role: "user", content: "@limits" }] };
  const held = await open.runs.create(thread, "chat", { input });
  await open.runs.create(thread, "chat", { input, multitaskStrategy: "enqueue" });
  await look("limits", "limits", {}, "text=No limit is used up");
  await visit("limits", {}, async (page) => {
    const row = page.getByRole("row").filter({ hasText: "max_queued_runs" });
    await row.locator(`a[href$="${thread}"]`).waitFor();
    await row.getByRole("link", { name: "max_queued_runs" }).click();
    await page.waitForURL(/#\/settings\?setting=max_queued_runs/);
    await page.getByRole("row").filter({ hasText: "RUNLANE_MAX_QUEUED_RUNS" }).waitFor();
  });
  await open.runs.cancel(thread, held.run_id, true);
});

test("settings are shown without secrets", async () => {
  await visit("settings?from=set", { key: KEYS.admin }, async (page) => {
    await page.getByRole("row").filter({ hasText: "api_keys" }).waitFor();
  });
  await look("settings", "settings", { key: KEYS.admin }, "text=max_concurrent_runs");
});
