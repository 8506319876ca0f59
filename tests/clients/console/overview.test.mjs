import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYED, KEYS, accessible, client, look, visit } from "./kit.mjs";

test("an empty server shows the line that makes the first run, and it does", async () => {
  await look("overview-empty", "overview", {}, "text=makes the first one");
  await visit("overview", {}, async (page) => {
    const line = await page.locator(".code-line pre").innerText();
    const [, url] = line.match(/curl (\S+)/);
    const [, body] = line.match(/-d '(.*)'/s);
    const answer = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    assert.equal(answer.status, 200, await answer.text());
    await page.getByText("makes the first one").waitFor({ state: "detached" });
    await page.getByText(/^Healthy: 0 of .* nothing waits; 1 run ended in the last hour, none of them failed/).waitFor();
  });
});

test("what needs attention comes first, and leads to the thing", async () => {
  const open = client();
  const { thread_id: thread } = await open.threads.create();
  const held = await open.runs.create(thread, "chat", { input: { messages: [{ role: "user", content: "@overview" }] } });
  const waiting = await open.runs.create(thread, "chat", {
    input: { messages: [{ role: "user", content: "later" }] },
    multitaskStrategy: "enqueue",
  });
  for (const number of [1, 2, 3]) {
    const { thread_id: failed } = await open.threads.create();
    await open.runs.wait(failed, "failing", { input: { number }, raiseError: false });
  }
  const { thread_id: asking } = await open.threads.create();
  await open.runs.wait(asking, "approval", { input: {} });
  await visit("overview", {}, async (page) => {
    await page.getByRole("heading", { name: "Needs attention" }).waitFor();
    await page.getByRole("link", { name: /3 threads failed|last run of 3/ }).waitFor();
    await page.getByRole("link", { name: /^◆ 1 thread waits for an answer|1 thread waits for an answer/ }).click();
    await page.waitForURL(/#\/inbox/);
    await page.goBack();
    await page.getByRole("region", { name: "Groups of failures" }).waitFor();
    // The run that waits is told after some seconds, with what it waits for.
    await page.getByRole("link", { name: /A run of chat has waited/ }).click();
    await page.waitForURL(new RegExp(`#/run/${waiting.run_id}`));
  });
  await look("overview", "overview", {}, "text=A run of chat has waited");
  await open.runs.cancel(thread, held.run_id, true);
});

test("owners see their own runs, and an operator without payload no messages of errors", async () => {
  const acme = client(KEYS.owner);
  const { thread_id: thread } = await acme.threads.create();
  await acme.runs.wait(thread, "failing", { input: { number: 4 }, raiseError: false });
  await visit("overview", { key: KEYS.owner }, async (page) => {
    await page.getByText("None of your runs is active.").waitFor();
    await page.getByRole("link", { name: /The last run of 1 thread failed/ }).waitFor();
    await page.getByRole("region", { name: "Groups of failures" }).getByText("boom").waitFor();
    await accessible(page);
  });
  await visit("overview", { key: KEYS.other }, async (page) => {
    await page.getByText("You have made no run yet.").waitFor();
    await page.getByText("makes the first one").waitFor();
  });
  await look("overview-owner", "overview", { key: KEYS.owner }, "text=Last runs");
  await visit("overview", { key: KEYS.reader }, async (page) => {
    await page.getByRole("region", { name: "Groups of failures" }).getByText("hidden").waitFor();
  });
  assert.ok(KEYED);
});
