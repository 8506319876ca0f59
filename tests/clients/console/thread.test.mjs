import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { promisify } from "node:util";
import { KEYS, accessible, client, look, visit } from "./kit.mjs";

const say = (content) => ({ input: { messages: [{ role: "user", content }] } });

/** A thread with ended runs of several kinds, one that runs, and two in its queue. */
async function busyThread(api, gate) {
  const thread = await api.threads.create();
  const id = thread.thread_id;
  await api.runs.wait(id, "chat", say("Plan a trip to Oslo in May"));
  await api.runs.wait(id, "failing", { input: { kind: "plain" }, raiseError: false });
  await api.runs.wait(id, "chat", say("And the weather?"));
  const running = await api.runs.create(id, "chat", { ...say(`one moment ${gate} please`), streamMode: ["messages-tuple"] });
  const queued = [];
  for (const text of ["second", "third"]) {
    queued.push(await api.runs.create(id, "chat", { ...say(text), multitaskStrategy: "enqueue" }));
  }
  return { id, running, queued };
}

test("a thread shows its lane, what was said beside the state, its history and its runs", async () => {
  const api = client();
  const { id, running, queued } = await busyThread(api, "@thread-1");
  await visit(`thread/${id}`, {}, async (page) => {
    await page.getByRole("heading", { name: "Plan a trip to Oslo in May" }).waitFor();
    await page.getByText("is being executed; 2 runs wait behind it.").waitFor();
    const lane = page.getByRole("list", { name: "Lane" });
    await lane.getByText("place 1, waits").waitFor();
    assert.equal(await lane.locator(".lane-ended").count(), 3);
    const cards = await lane.locator(".lane-card a").allInnerTexts();
    assert.deepEqual(cards, [running, ...queued].map((run) => `…${run.run_id.slice(-8)}`));
    await page.getByText("echo: And the weather?").first().waitFor();
    const growing = page.locator(".bubble-ai").last();
    await growing.getByText("echo: one moment", { exact: true }).waitFor();
    await growing.getByText("writing…").waitFor();
    await accessible(page);
    await page.getByRole("link", { name: "History" }).click();
    const history = page.getByRole("region", { name: "History" });
    await history.locator("tbody tr").nth(3).waitFor();
    await accessible(page);
    await history.locator("tbody tr").last().getByRole("link").click();
    await page.getByRole("button", { name: "Fork from here" }).waitFor();
    await page.getByRole("link", { name: "Runs", exact: true }).last().click();
    await page.getByRole("region", { name: "Runs" }).getByText("ValueError: boom").waitFor();
    await page.getByRole("link", { name: "About" }).click();
    await page.getByText("In all").waitFor();
    await accessible(page);
  });
  await look("thread", `thread/${id}`, {}, ".bubble-ai");
  await look("thread-history", `thread/${id}?tab=history`, {}, "tbody tr");
  await api.runs.wait(null, "gate", { input: { name: "thread-1" } });
  await visit(`thread/${id}`, {}, async (page) => {
    await page.getByText("Nothing runs.").waitFor();
    const chat = page.getByRole("log", { name: "Conversation" });
    await chat.getByText("echo: one moment @thread-1 please").waitFor();
    await chat.getByText("echo: third").waitFor();
    assert.equal(await page.locator(".bubble").count(), 10);
  });
});

test("a thread is copied, exported, pruned and deleted, each after its consequences were told", async () => {
  const api = client();
  const { thread_id: id } = await api.threads.create();
  await api.runs.wait(id, "chat", say("Keep this"));
  await visit(`thread/${id}`, {}, async (page) => {
    await page.getByText("echo: Keep this").first().waitFor();
    const saving = page.waitForEvent("download");
    await page.getByRole("button", { name: "Export" }).click();
    const saved = JSON.parse(await readFile(await (await saving).path(), "utf8"));
    assert.equal(saved.thread_id, id);
    assert.equal(saved.history.length, 3);

    await page.getByRole("button", { name: "Prune" }).click();
    await page.getByText("nobody can fork from them").waitFor();
    await accessible(page);
    await page.getByRole("button", { name: "Delete old checkpoints" }).click();
    await page.getByRole("dialog").waitFor({ state: "detached" });
    assert.equal((await api.threads.getHistory(id)).length, 1);

    await page.getByRole("button", { name: "Copy", exact: true }).click();
    await page.waitForURL((url) => !url.hash.includes(id));
    await page.getByText("echo: Keep this").first().waitFor();
    await page.getByText("Nothing has run on this thread yet.").waitFor();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.getByText("This cannot be undone").waitFor();
    await accessible(page);
    await page.getByRole("button", { name: "Delete the thread" }).click();
    await page.waitForURL(/#\/threads$/);
    assert.equal((await api.threads.get(id)).thread_id, id);
  });
});

test("without an id the page asks which thread", async () => {
  await visit("thread", {}, (page) => page.getByText("Which thread? Open one from Threads").waitFor());
});

test("a fork from a checkpoint is a run that goes on from there", async () => {
  const api = client();
  const { thread_id: id } = await api.threads.create();
  await api.runs.wait(id, "steps", { input: { steps: 2 } });
  const [, before] = await api.threads.getHistory(id);
  await visit(`thread/${id}?checkpoint=${before.checkpoint.checkpoint_id}`, {}, async (page) => {
    await page.getByRole("button", { name: "Fork from here" }).click();
    await page.waitForURL(/#\/run\//);
  });
  assert.equal((await api.runs.list(id)).length, 2);
});

test("who may not read payload sees the lane and no text; who does not own the thread sees nothing", async () => {
  const api = client(KEYS.owner);
  const { thread_id: id } = await api.threads.create({ metadata: { title: "Secret plan" } });
  await api.runs.wait(id, "chat", say("Secret words"));
  await visit(`thread/${id}`, { key: KEYS.reader }, async (page) => {
    await page.getByText("Messages and state are payload").waitFor();
    assert.equal(await page.locator(".lane-ended").count(), 1);
    assert.doesNotMatch(await page.locator("body").innerText(), /Secret/);
    assert.equal(await page.getByRole("button", { name: "Delete" }).count(), 0);
    await accessible(page);
  });
  await look("thread-hidden", `thread/${id}`, { key: KEYS.reader }, ".payload-hidden");
  await visit(`thread/${id}`, { key: KEYS.owner }, async (page) => {
    await page.getByRole("heading", { name: "Secret plan" }).waitFor();
  });
  await visit(`thread/${id}`, { key: KEYS.other }, async (page) => {
    await page.getByText("There is no thread").waitFor();
  });
});

test("a damaged thread is told with what is wrong, and repaired by its owner", async () => {
  const api = client(KEYS.owner);
  const { thread_id: id } = await api.threads.create();
  await api.runs.wait(id, "chat", say("Keep this"));
  await visit(`thread/${id}`, { key: KEYS.owner }, async (page) => {
    await page.getByRole("log").getByText("echo: Keep this").waitFor();
    assert.equal(await page.getByText("This thread is damaged").count(), 0);
  });
  const damage = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None); ";
  const update = "db.execute('UPDATE threads SET status = ? WHERE thread_id = ?', ('busy', sys.argv[2]))";
  await promisify(execFile)(process.env.PYTHON, ["-c", damage + update, process.env.KEYED_DATABASE, id]);
  await visit(`thread/${id}`, { key: KEYS.reader }, async (page) => {
    await page.getByText("This thread is damaged").waitFor();
    await page.getByRole("button", { name: "Findings" }).click();
    await page.getByText("can be repaired").waitFor();
    assert.equal(await page.getByRole("button", { name: /^Make/ }).count(), 0);
  });
  await look("thread-damaged", `thread/${id}`, { key: KEYS.owner }, ".banner-error");
  await visit(`thread/${id}`, { key: KEYS.owner }, async (page) => {
    await page.getByRole("button", { name: "Repair…" }).click();
    await accessible(page);
    await page.getByRole("button", { name: "Make 1 repair" }).click();
    await page.getByText("repaired", { exact: true }).waitFor();
    await accessible(page);
    await page.getByRole("button", { name: "Close" }).click();
    await page.getByText("This thread is damaged").waitFor({ state: "detached" });
    await page.locator(".under-head").getByText("idle").waitFor();
  });
});
