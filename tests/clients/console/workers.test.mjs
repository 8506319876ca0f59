import { test } from "node:test";
import { client, look, visit } from "./kit.mjs";

test("workers are listed with what they execute", async () => {
  const open = client();
  const { thread_id: thread } = await open.threads.create();
  const run = await open.runs.create(thread, "chat", { input: { messages: [{ role: "user", content: "@workers" }] } });
  await visit("workers", {}, async (page) => {
    await page.getByText(/^1 worker is ready, with 1 run in/).waitFor();
    await page.getByRole("region", { name: "Workers" }).locator(`a[href$="${run.run_id}"]`).click();
    await page.waitForURL(new RegExp(`#/run/${run.run_id}`));
  });
  await visit("workers", {}, async (page) => {
    await page.getByRole("button", { name: "Drain" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Drain" }).click();
    await page.getByText(/1 drains/).waitFor();
    await page.getByText(/(1 run|no runs) left, since/).waitFor();
    await page.getByRole("button", { name: "Stop draining" }).click();
    await page.getByText(/^1 worker is ready/).waitFor();
  });
  await look("workers", "workers", {}, "text=1 worker is ready");
  await open.runs.cancel(thread, run.run_id, true);
});
