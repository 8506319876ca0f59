import assert from "node:assert/strict";
import { test } from "node:test";
import { OPEN, accessible, client, look, visit } from "./kit.mjs";

const say = (content) => ({ input: { messages: [{ role: "user", content }] } });

test("an empty server shows the line that makes the first run, and the line makes it", async () => {
  await visit("runs", {}, async (page) => {
    await page.getByRole("heading", { name: "Make the first run" }).waitFor();
    const line = await page.locator(".code-line pre").innerText();
    assert.ok(line.includes(`curl ${OPEN}/runs/wait`), line);
    await accessible(page);
    const { execFile } = await import("node:child_process");
    const { promisify } = await import("node:util");
    await promisify(execFile)("bash", ["-c", line]);
    await page.getByRole("region", { name: "Runs" }).getByText("success").waitFor();
  });
  await look("runs-one", "runs", {}, ".status");
});

test("runs of every kind are listed, and a filter with completion is in the URL", async () => {
  const api = client();
  const thread = await api.threads.create();
  await api.runs.wait(thread.thread_id, "chat", say("Plan a trip to Oslo in May"));
  await api.runs.wait(null, "failing", { input: { kind: "plain" }, raiseError: false });
  await api.runs.wait((await api.threads.create()).thread_id, "approval", { input: { topic: "trip" } });
  const held = await api.threads.create();
  await api.runs.create(held.thread_id, "chat", say("wait @never-opened-1"));
  const second = await api.runs.create(held.thread_id, "chat", { ...say("after it"), multitaskStrategy: "enqueue" });
  await visit("runs", {}, async (page) => {
    const rows = page.getByRole("region", { name: "Runs" }).locator("tbody tr");
    await rows.nth(5).waitFor(); // with the one of the test before
    await page.getByText(/waits for run/).waitFor();
    const field = page.getByRole("combobox", { name: "Filter of runs" });
    await field.pressSequentially("stat");
    await page.getByRole("option", { name: /status:/ }).waitFor();
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.keyboard.type("err");
    await page.getByRole("option", { name: "status:error" }).waitFor();
    await accessible(page);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Tab");
    assert.equal(await field.inputValue(), "status:error ");
    await page.keyboard.press("Enter");
    await page.waitForURL(/runs\?status=error$/);
    await page.getByText("1 matches: 1 failed.").waitFor();
    await page.getByText("ValueError").waitFor();
  });
  await visit(`runs?thread=${held.thread_id}&status=pending`, {}, async (page) => {
    await page.getByRole("link", { name: second.run_id.slice(-8) }).waitFor();
    assert.equal(await page.locator("tbody tr").count(), 1);
  });
  await look("runs", "runs", {}, ".status-paused");
  await look("runs-filter", "runs?status=error", {}, ".status-error");
});

test("a word that is no filter is told, and not ignored", async () => {
  await visit("runs", {}, async (page) => {
    const field = page.getByRole("combobox", { name: "Filter of runs" });
    await field.fill("colour:red status:ready");
    await page.keyboard.press("Escape");
    await page.keyboard.press("Enter");
    await page.getByText("There is no filter “colour:”").waitFor();
    await page.getByText("“status:ready” is none of").waitFor();
    assert.match(page.url(), /runs$/);
  });
  await visit("runs?age=old", {}, async (page) => {
    await page.getByText("“age:old” is no age").waitFor();
  });
});

test("rows that are new wait while one has scrolled", async () => {
  const api = client();
  for (let at = 0; at < 40; at++) await api.runs.wait(null, "steps", { input: { steps: 0 } });
  await visit("runs", {}, async (page) => {
    await page.locator("tbody tr").nth(40).waitFor();
    const top = await page.locator("tbody tr a").first().innerText();
    await page.mouse.move(700, 500);
    await page.mouse.wheel(0, 400);
    await page.waitForFunction(() => scrollY > 160);
    await api.runs.wait(null, "steps", { input: { steps: 0 } });
    await page.getByRole("button", { name: "1 new" }).waitFor();
    assert.equal(await page.locator("tbody tr a").first().innerText(), top);
    await accessible(page);
    await page.getByRole("button", { name: "1 new" }).click();
    await page.waitForFunction((was) => document.querySelector("tbody tr a").textContent !== was, top);
  });
});
