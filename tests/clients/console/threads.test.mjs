import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, accessible, client, look, visit } from "./kit.mjs";

const say = (content) => ({ input: { messages: [{ role: "user", content }] } });

test("threads are listed by how they began, and filtered by what they wait for", async () => {
  await visit("threads", {}, async (page) => {
    await page.getByText("There are no threads yet.").waitFor();
  });
  const api = client();
  const said = await api.threads.create();
  await api.runs.wait(said.thread_id, "chat", say("Plan a trip to Oslo in May ".repeat(12)));
  const titled = await api.threads.create({ metadata: { title: "مرحبا بالعالم", team: "billing" } });
  await api.runs.wait(titled.thread_id, "failing", { input: { kind: "plain" }, raiseError: false });
  const asks = await api.threads.create();
  await api.runs.wait(asks.thread_id, "approval", { input: { topic: "trip" } });
  await visit("threads", {}, async (page) => {
    await page.getByText("3 threads: 1 waiting for a person, 1 failed, 1 idle.").waitFor();
    await page.getByRole("link", { name: /^Plan a trip to Oslo/ }).waitFor();
    await page.getByText("waits for 1 answer").waitFor();
    await page.getByText("ValueError: boom").waitFor();
    await accessible(page);
    const field = page.getByRole("combobox", { name: "Filter of threads" });
    await field.fill('metadata:{"team":"billing"}');
    await page.keyboard.press("Enter");
    await page.getByText("1 thread: 1 failed.").waitFor();
    await field.fill("metadata:billing");
    await page.keyboard.press("Enter");
    await page.getByText("is no JSON object").waitFor();
  });
  await look("threads", "threads", {}, "tbody tr:nth-child(3)");
});

test("selected threads are deleted, and those that are busy are named", async () => {
  const api = client();
  const idle = await api.threads.create();
  await api.runs.wait(idle.thread_id, "steps", { input: { steps: 0 } });
  const busy = await api.threads.create();
  await api.runs.create(busy.thread_id, "chat", say("wait @threads-1"));
  await visit(`threads?thread=${idle.thread_id},${busy.thread_id}`, {}, async (page) => {
    await page.getByLabel("Select all rows").check();
    await page.getByText("2 threads selected").waitFor();
    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByText("This cannot be undone.").waitFor();
    await accessible(page);
    await page.getByRole("button", { name: "Delete 2 threads" }).click();
    await page.getByText("1 thread deleted. 1 left alone").waitFor();
    await accessible(page);
    await page.getByRole("button", { name: "Close" }).click();
    await page.getByText("1 thread: 1 busy.").waitFor();
  });
  await assert.rejects(api.threads.get(idle.thread_id), /404/);
  await api.runs.wait(null, "gate", { input: { name: "threads-1" } });
});

test("an operator without payload sees threads of all owners, no texts, and nothing to delete", async () => {
  const api = client(KEYS.owner);
  const { thread_id: id } = await api.threads.create({ metadata: { title: "Secret plan" } });
  await api.runs.wait(id, "chat", say("Secret words"));
  await visit("threads", { key: KEYS.reader }, async (page) => {
    await page.getByRole("link", { name: `…${id.slice(-8)}` }).waitFor();
    assert.doesNotMatch(await page.locator("body").innerText(), /Secret/);
    assert.equal(await page.getByRole("checkbox").count(), 0);
  });
  await visit("threads", { key: KEYS.other }, async (page) => {
    await page.getByText("There are no threads yet.").waitFor();
  });
});

test("an operator sees whose threads these are, and those of one owner", async () => {
  for (const key of [KEYS.owner, KEYS.other]) await client(key).threads.create();
  await visit("threads", { key: KEYS.admin }, async (page) => {
    await page.getByText("3 threads: 3 idle.").waitFor();
    await page.getByRole("link", { name: "umbrella" }).click();
    await page.waitForURL(/#\/threads\?owner=umbrella/);
    await page.getByText("1 thread: 1 idle.").waitFor();
  });
  await visit("threads?owner=umbrella", { key: KEYS.owner }, (page) => page.getByText("No thread matches.").waitFor());
});
