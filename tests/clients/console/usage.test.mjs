import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { KEYS, client, look, visit } from "./kit.mjs";
import { say, start } from "./runs.mjs";

test("what runs took is summed by what somebody chooses, and saved as CSV", async () => {
  const open = client();
  await visit("usage", {}, (page) => page.getByText("No run ended on these days").waitFor());
  for (const graph of ["chat", "chat", "steps", "failing"]) {
    const { thread_id: thread } = await open.threads.create();
    const input = graph === "chat" ? { messages: [{ role: "user", content: "hi" }] } : {};
    await open.runs.wait(thread, graph, { input, raiseError: false });
  }
  await visit("usage", {}, async (page) => {
    await page.getByRole("combobox", { name: "By" }).selectOption("graph");
    await page.getByRole("combobox", { name: "Of" }).selectOption("runs");
    await page.waitForURL(/by=graph&of=runs/);
    await page.getByText(/^4 runs ended, which cost 0\.044, from .*; 50 % of them of graph chat\.$/).waitFor();
    const [saved] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "CSV" }).click()]);
    const lines = (await readFile(await saved.path(), "utf8")).trim().split("\r\n");
    assert.match(lines[0], /^graph,day,runs,failed,/);
    assert.equal(lines.length, 4);
    assert.ok(lines.some((line) => /^chat,\d{4}-\d\d-\d\d,2,0,/.test(line)), lines.join("\n"));
    await page.getByRole("region", { name: "Usage by graph" }).getByRole("link", { name: "failing" }).click();
    await page.waitForURL(/#\/runs\?graph=failing/);
  });
  await visit("usage", {}, async (page) => {
    await page.getByText(/^6 tokens, which cost 0\.044, from/).waitFor();
    await page.getByRole("region", { name: "Usage by model" }).getByRole("cell", { name: "0.044" }).waitFor();
  });
  await look("usage", "usage?by=graph&of=runs", {}, "text=runs ended");
});

test("a run says what each of its models cost", async () => {
  const run = await start("chat", say("hello dear model"));
  await visit(`run/${run.run_id}?tab=usage`, {}, async (page) => {
    await page.getByText("1 model call used 7 tokens, which cost 0.046 by the prices that hold now.").waitFor();
    await page.getByRole("row", { name: /^echo-1 1 3 0 4 7 0\.046$/ }).waitFor();
  });
  await visit("usage", {}, async (page) => {
    await page.getByText(/^13 tokens,/).waitFor();
    assert.deepEqual(await page.locator(".axis span").allInnerTexts(), ["14", "7", "0"]);
  });
});

test("an owner sees what their own runs took", async () => {
  const acme = client(KEYS.owner);
  const { thread_id: thread } = await acme.threads.create();
  await acme.runs.wait(thread, "steps", { input: {} });
  await visit("usage?by=graph&of=runs", { key: KEYS.owner }, async (page) => {
    await page.getByText(/^1 runs? ended from/).waitFor();
    assert.equal(await page.getByLabel("Owner").count(), 0);
  });
  await visit("usage?by=graph&of=runs", { key: KEYS.other }, async (page) => page.getByText("No run ended on these days").waitFor());
});
