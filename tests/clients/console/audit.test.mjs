import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, client, look, visit } from "./kit.mjs";

test("who of the operators did what is listed, and leads to the thing", async () => {
  const acme = client(KEYS.owner);
  const { thread_id: thread } = await acme.threads.create();
  const run = await acme.runs.create(thread, "chat", { input: { messages: [{ role: "user", content: "@audit" }] } });
  await client(KEYS.admin).runs.cancel(thread, run.run_id, true);
  await visit("audit", { key: KEYS.admin }, async (page) => {
    await page.getByLabel("Who").fill("ada");
    await page.getByLabel("Who").press("Enter");
    await page.waitForURL(/actor=ada/);
    const row = page.getByRole("row").filter({ hasText: "cancel" });
    await row.getByRole("link", { name: /cancel/ }).click();
    await page.getByRole("dialog").getByText(run.run_id).first().waitFor();
    await page.getByRole("button", { name: "Close" }).click();
    await row.locator(".chip a").first().waitFor();
    await page.getByRole("region", { name: "API keys" }).getByText("umbrella").waitFor();
  });
  await look("audit", "audit", { key: KEYS.admin }, "text=of 1 operator");
});

test("a server that asks nobody says why nothing is recorded", async () => {
  await visit("audit", {}, (page) => page.getByText("This server asks nobody who they are").waitFor());
});

test("an owner is not offered the audit", async () => {
  await visit("overview", { key: KEYS.owner }, async (page) => {
    await page.getByRole("link", { name: "Crons" }).waitFor();
    assert.equal(await page.getByRole("link", { name: "Audit" }).count(), 0);
  });
});
