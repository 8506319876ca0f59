// The console of one server, while runs execute in workers that are killed and drained, and while the server itself is away.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { test } from "node:test";
import { text } from "node:stream/consumers";
import { Client } from "@langchain/langgraph-sdk";
import { OPEN, accessible, client, visit } from "../kit.mjs";
import { say, start } from "../runs.mjs";

const OTHER = new Client({ apiUrl: process.env.OTHER_URL, apiKey: null });
/** What a browser says of a server that is away, and of a stream that broke. */
const AWAY = [/ERR_CONNECTION_REFUSED/, /ERR_INCOMPLETE_CHUNKED_ENCODING/, /ERR_CONNECTION_RESET/, /ERR_EMPTY_RESPONSE/];

/** Kill or start a process, or ask for `pid` only. Returns: its process id. */
async function tell(verb, name) {
  const socket = connect(Number(process.env.REMOTE_PORT), "127.0.0.1");
  socket.write(`${verb} ${name}\n`);
  return JSON.parse(await text(socket));
}

const openGate = (name) => writeFile(`${process.env.GATES}/${name}`, "");
const fleet = async () => (await (await fetch(`${OPEN}/operator/workers`)).json()).workers;

/** Return which process executes the run: its name, its worker, and the name of the other process. */
async function executing(runId) {
  const until = Date.now() + 30_000;
  for (;;) {
    const worker = (await fleet()).find((one) => one.runs.includes(runId));
    assert.ok(worker || Date.now() < until, `no worker executes ${runId}`);
    if (!worker) continue;
    const isOne = worker.pid === (await tell("pid", "one"));
    return { name: isOne ? "one" : "two", rest: isOne ? "two" : "one", id: worker.worker_id };
  }
}

test("a run page goes on with its stream when its worker is killed, and tells of the rescue", async () => {
  const name = crypto.randomUUID();
  const run = await start("chat", say(`one two @${name} three`), { ended: false });
  const worker = await executing(run.run_id);
  await visit(`run/${run.run_id}`, {}, async (page) => {
    const talk = page.getByRole("log", { name: "Conversation" });
    const timeline = page.getByRole("region", { name: "Timeline" });
    await talk.getByText("echo: one two").waitFor();
    await page.getByText(`Attempt 1 executes on worker ${worker.id}`).waitFor();
    const asked = [];
    page.on("request", (request) => request.url().endsWith("/watch") && asked.push(request.url()));
    await tell("kill", worker.name);
    await timeline.getByText("▲ lost its worker").waitFor();
    await page.getByText(/Attempt 2 executes on worker/).waitFor();
    assert.notEqual((await executing(run.run_id)).id, worker.id);
    await talk.getByText("cut off: this is all that came").waitFor();
    await talk.getByText("writing…").waitFor();
    assert.equal(await talk.getByText("echo: one two").count(), 2);
    await openGate(name);
    await talk.getByText(/^echo: one two @.* three$/).waitFor();
    await page.getByText("It completed.").waitFor();
    assert.match(await talk.locator(".bubble").last().innerText(), /three$/); // what was cut off is above it
    assert.deepEqual(asked, [], "the stream was opened anew");
    await page.getByRole("link", { name: "Cause" }).click();
    await page.locator(".cause").getByText(/Attempt 1 lost/).waitFor();
  });
  await tell("start", worker.name);
});

test("the list shows runs of both workers as they start and end", async () => {
  const names = [crypto.randomUUID(), crypto.randomUUID()];
  await visit("runs?graph=chat&status=running", {}, async (page) => {
    await page.getByText("No run matches.").first().waitFor();
    const runs = [];
    for (const name of names) runs.push(await start("chat", say(`hold @${name}`), { ended: false }));
    const row = (run) => page.getByRole("region", { name: "Runs" }).locator("tr", { hasText: run.run_id.slice(-8) });
    for (const run of runs) await row(run).getByText("running").waitFor();
    const workers = await Promise.all(runs.map((run) => executing(run.run_id)));
    assert.notEqual(workers[0].name, workers[1].name);
    await openGate(names[0]);
    await row(runs[0]).waitFor({ state: "detached" });
    await row(runs[1]).getByText("running").waitFor();
    await openGate(names[1]);
    await page.getByText("No run matches.").first().waitFor();
  });
});

test("a question of a run on another node is answered in the inbox, and the run goes on there", async () => {
  const { thread_id: thread } = await OTHER.threads.create();
  await OTHER.runs.wait(thread, "mailer", { input: say("ada") });
  await visit("inbox", {}, async (page) => {
    await page.locator("article").filter({ hasText: "send_email" }).getByRole("button", { name: "Approve" }).click();
    await page.getByText("No agent waits for a person.").waitFor();
  });
  const [answer] = await OTHER.runs.list(thread);
  await OTHER.runs.join(thread, answer.run_id);
  assert.match((await OTHER.threads.getState(thread)).values.messages.at(-1).content, /Sent to ada/);
  const why = await (await fetch(`${OPEN}/runs/${answer.run_id}/explain`)).json();
  const { worker_id: executed } = why.steps.find((step) => step.kind === "claimed");
  const { here } = await (await fetch(`${OPEN}/operator/workers`)).json();
  assert.notEqual(executed, here);
});

test("a page says that its server is away, and goes on with its stream when it is back", async () => {
  const name = crypto.randomUUID();
  const run = await start("chat", say(`one @${name} two`), { ended: false });
  await visit(`run/${run.run_id}`, { allow: AWAY }, async (page) => {
    const talk = page.getByRole("log", { name: "Conversation" });
    const whole = /^echo: one @.* two$/;
    await talk.getByText("echo: one").waitFor();
    await tell("kill", "server");
    await page.getByText(/connection lost/).waitFor();
    await page.getByText(/stale: last read/).waitFor();
    await openGate(name);
    await OTHER.runs.join(run.thread_id, run.run_id);
    assert.equal(await talk.getByText(whole).count(), 0);
    await visit(`run/${run.run_id}`, { url: process.env.OTHER_URL }, (other) => other.getByText(whole).waitFor());
    await tell("start", "server");
    await talk.getByText(whole).waitFor();
    await page.getByText("It completed.").waitFor();
    await page.getByText("● live", { exact: true }).waitFor();
  });
});

test("while the database is unavailable a page says so, greys what it has read, and goes on afterwards", async () => {
  await visit("runs", { allow: [/status of 503/] }, async (page) => {
    await page.locator("tbody tr").first().waitFor();
    await tell("kill", "database");
    try {
      await page.getByText(/database unavailable/).waitFor();
      await page.locator(".greyed tbody tr").first().waitFor();
      await page.getByText("the server's log has the cause").waitFor();
      await accessible(page);
    } finally {
      await tell("start", "database");
    }
    await page.locator(".fresh-live").waitFor();
    assert.equal(await page.locator(".greyed").count(), 0);
  });
});

test("a worker is drained from the page, which shows how far it is, and starts runs again", async () => {
  const name = crypto.randomUUID();
  const run = await start("chat", say(`drain @${name}`), { ended: false });
  const worker = await executing(run.run_id);
  const other = await tell("pid", worker.rest);
  await visit("workers", {}, async (page) => {
    const table = page.getByRole("region", { name: "Workers" });
    const row = table.locator("tr", { hasText: worker.id });
    await page.getByText(/^2 workers are ready, with 1 run in 2 slots\. 2 servers execute no runs\.$/).waitFor();
    await table.locator("tr", { hasText: `-${other}-` }).getByText("0 / 1").waitFor();
    assert.equal(await table.getByRole("button", { name: "Drain" }).count(), 2);
    await row.getByRole("button", { name: "Drain" }).click();
    await page.getByRole("dialog").getByText("1 run may end").waitFor();
    await page.getByRole("dialog").getByRole("button", { name: "Drain" }).click();
    await row.locator(".status", { hasText: "draining" }).waitFor();
    await row.getByText("1 / 1").waitFor();
    const next = await start("chat", say("next"));
    const why = await (await fetch(`${OPEN}/runs/${next.run_id}/explain`)).json();
    assert.ok(why.steps.find((step) => step.kind === "claimed").worker_id.includes(`-${other}-`));
    await openGate(name);
    await row.getByText("0 / 1").waitFor();
    await row.locator(".status", { hasText: "draining" }).waitFor();
    await row.getByRole("button", { name: "Stop draining" }).click();
    await row.getByText("ready").waitFor();
  });
});
