import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, OPEN, accessible, client, visit } from "./kit.mjs";
import { MODES, say, start } from "./runs.mjs";

const open = (name) => client().runs.wait(null, "gate", { input: { name } });

test("a conversation grows as it is streamed, says what is partial, and ends whole", async () => {
  const name = crypto.randomUUID();
  const run = await start("chat", say(`one two @${name} three`), { ended: false });
  await visit(`run/${run.run_id}`, {}, async (page) => {
    const talk = page.getByRole("log", { name: "Conversation" });
    await talk.getByText("echo: one two").waitFor();
    await talk.getByText("writing…").waitFor();
    await page.getByText(/Attempt 1 executes on worker/).waitFor();
    await open(name);
    await talk.getByText(/echo: one two @.* three/).waitFor();
    await page.getByText("It completed.").waitFor();
    assert.equal(await talk.getByText("writing…").count(), 0);
    assert.equal(await talk.getByText(/^echo:/).count(), 1);
  });
});

test("a hidden tab asks for nothing, and goes on where it was", async () => {
  const name = crypto.randomUUID();
  const run = await start("chat", say(`one @${name} two`), { ended: false });
  await visit(`run/${run.run_id}`, {}, async (page) => {
    const hide = (hidden) =>
      page.evaluate((value) => {
        Object.defineProperty(document, "hidden", { value, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
      }, hidden);
    const talk = page.getByRole("log", { name: "Conversation" });
    await talk.getByText("echo: one").waitFor();
    const closed = page.waitForEvent("requestfailed", (request) => request.url().endsWith("/watch"));
    await hide(true);
    await closed;
    await page.getByText("paused").first().waitFor();
    const asked = [];
    page.on("request", (request) => asked.push(request.url()));
    await open(name);
    await client().runs.join(run.thread_id, run.run_id);
    assert.deepEqual(asked, []);
    await hide(false);
    await talk.getByText(/^echo: one @.* two$/).waitFor();
    await page.getByText("It completed.").waitFor();
    const events = await fetch(`${OPEN}/runs/${run.run_id}/events?limit=1`);
    const count = Number(events.headers.get("x-pagination-total")) + 1; // the end of the stream, which is no event of the log
    await page.getByText(`${count} / ${count}`, { exact: true }).waitFor();
  });
});

test("a lost connection is told, and the conversation goes on after it", async () => {
  const name = crypto.randomUUID();
  const run = await start("chat", say(`one @${name} two`), { ended: false });
  await visit(`run/${run.run_id}`, { allow: [/ERR_INTERNET_DISCONNECTED/] }, async (page, context) => {
    const talk = page.getByRole("log", { name: "Conversation" });
    await talk.getByText("echo: one").waitFor();
    await context.setOffline(true);
    await page.getByText(/connection lost/).waitFor();
    await page.getByText(/stale: last read/).waitFor();
    await page.getByText(/ when the server was heard last$/).waitFor();
    await open(name);
    await client().runs.join(run.thread_id, run.run_id);
    await context.setOffline(false);
    await talk.getByText(/^echo: one @.* two$/).waitFor();
    await page.getByText("It completed.").waitFor();
  });
});

test("a cancel asks with its consequence, shows its receipt, and marks what was cut off", async () => {
  const name = crypto.randomUUID();
  const run = await start("chat", say(`half @${name} never`), { ended: false });
  await visit(`run/${run.run_id}`, {}, async (page) => {
    await page.getByText("echo: half").waitFor();
    await page.getByRole("button", { name: "Cancel", exact: true }).click();
    const dialog = page.getByRole("dialog", { name: "Cancel the run?" });
    await dialog.getByText("a retry goes on from there").waitFor();
    await accessible(page);
    await dialog.getByRole("button", { name: "Cancel the run" }).click();
    await page.getByRole("region", { name: "Receipt of the cancel" }).getByText(/code stopped/).waitFor();
    await page.getByText("cut off: this is all that came").waitFor();
    await page.getByText("interrupted").first().waitFor();
  });
});

test("a rollback tells which effects stay, and a steered run makes way for the message", async () => {
  const api = client();
  const name = crypto.randomUUID();
  const first = await start("tools", say("add"));
  const run = await api.runs.create(first.thread_id, "chat", { input: say(`go @${name}`), streamMode: MODES });
  await visit(`run/${run.run_id}`, {}, async (page) => {
    await page.getByText("echo: go").waitFor();
    await page.getByRole("button", { name: "Roll back" }).click();
    await page.getByText("It made no tool call that this page knows of.").waitFor();
    await page.getByRole("button", { name: "Leave it" }).click();
    await page.getByRole("button", { name: "Steer" }).click();
    await page.getByLabel("Message", { exact: true }).fill("rather this");
    await page.getByLabel("When it starts").selectOption("rollback");
    await accessible(page);
    await page.getByRole("dialog").getByLabel("Show as code").click();
    await page.getByRole("button", { name: "Copy curl" }).last().click();
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(copied, /^curl -X POST http:\/\/.*\/runs -H 'Content-Type: application\/json' -d '\{"assistant_id"/);
    await page.getByRole("button", { name: "Send" }).click();
    await page.waitForURL((url) => !url.hash.includes(run.run_id));
    await page.getByText("echo: rather this").waitFor();
    assert.equal(await page.getByText("echo: go").count(), 0);
  });
});

test("a long error leaves the timeline and the tabs in view, and is shown whole on demand", async () => {
  const run = await start("failing", { kind: "long" });
  await visit(`run/${run.run_id}`, {}, async (page) => {
    await page.locator(".run-error").getByText("a line").waitFor();
    const tabs = await page.getByRole("link", { name: "Checkpoints" }).boundingBox();
    assert.ok(tabs.y + tabs.height < 600, `the tabs are at ${tabs.y}`);
    assert.doesNotMatch(await page.locator(".run-error").innerText(), /boom/);
    await page.locator(".run-error").getByRole("button", { name: /^all 3\d\d\d characters$/ }).click();
    await page.locator(".run-error").getByText("boom boom").waitFor();
  });
  await visit(`thread/${run.thread_id}`, {}, async (page) => {
    const sentence = await page.locator(".sentence").innerText();
    assert.match(sentence, /^The last run failed .*: ValueError: a line a line.*… A|^The last run failed .*ValueError: a line a line.*…\./);
    assert.ok(sentence.length < 250, sentence);
  });
});

test("a retry is a new run that says what it retries", async () => {
  const run = await start("failing", { kind: "x" });
  await visit(`run/${run.run_id}`, {}, async (page) => {
    await page.locator(".run-error").getByText("boom").waitFor();
    await page.getByRole("button", { name: "Retry" }).click();
    await page.getByLabel("Send the same input again").check();
    await page.getByRole("dialog").getByRole("button", { name: "Retry" }).click();
    await page.getByText("retry of").waitFor();
    await page.getByText("It failed with ValueError.").waitFor();
    await page.getByText("retry of").getByRole("link").click();
    await page.waitForURL((url) => url.hash.includes(run.run_id));
  });
});

test("tool calls are folded with their arguments and results", async () => {
  const run = await start("tools", say("add"));
  await visit(`run/${run.run_id}`, {}, async (page) => {
    const call = page.locator("details.call");
    await call.getByText("● done").waitFor();
    assert.equal(await call.getByText("Arguments").isVisible(), false);
    await call.locator("summary").first().click();
    await call.getByText("Result").waitFor();
    await page.getByRole("region", { name: "Timeline" }).getByText("add ✓").waitFor();
    await page.getByText("echo: 3").waitFor();
  });
});

test("questions are answered one by one, and each answer leads to the run that goes on", async () => {
  const run = await start("approvals", { topic: "x" });
  await visit(`run/${run.run_id}`, {}, async (page) => {
    const questions = page.getByRole("region", { name: "Questions" });
    await questions.getByRole("heading", { name: /asks 2 questions/ }).waitFor();
    await questions.getByLabel("Answer", { exact: true }).first().fill("yes");
    await questions.getByRole("button", { name: "Answer", exact: true }).first().click();
    await page.waitForURL((url) => !url.hash.includes(run.run_id));
    await questions.getByRole("heading", { name: "The graph asks", exact: false }).waitFor();
    const second = page.url();
    await questions.getByLabel("Answer", { exact: true }).fill("indeed");
    await questions.getByRole("button", { name: "Answer", exact: true }).click();
    await page.waitForURL((url) => url.href !== second);
    await page.getByText("It completed.").waitFor();
    await page.getByText("decided on 2").first().waitFor();
    await page.goto(page.url().replace(/#.*/, `#/run/${run.run_id}`));
    await page.getByText("was answered").waitFor();
  });
});

test("events are filtered by channel, replayed, and shown whole", async () => {
  const run = await start("tools", say("add"), { streamMode: [...MODES, "updates"] });
  await visit(`run/${run.run_id}?tab=events`, {}, async (page) => {
    const list = page.getByRole("list", { name: "Events" });
    await list.getByText("end", { exact: true }).waitFor();
    await page.getByRole("button", { name: "updates", exact: true }).click();
    await page.waitForURL(/channels=updates/);
    assert.equal(await list.getByRole("listitem").count(), 3);
    await list.getByRole("button").nth(1).click();
    await page.getByRole("region", { name: "Event", exact: true }).getByText("call-1").waitFor();
    await page.getByRole("button", { name: "updates", exact: true }).click();
    const bar = page.getByRole("slider", { name: "Event" });
    await bar.fill("3");
    await page.waitForURL(/at=3/);
    await page.getByRole("link", { name: "Conversation" }).click();
    await page.getByRole("log").getByText("add", { exact: true }).first().waitFor();
    assert.equal(await page.getByText("echo: 3").count(), 0);
    await page.getByLabel("Speed").selectOption("max");
    await page.getByRole("button", { name: "Replay" }).click();
    await page.getByText("echo: 3").waitFor();
  });
});

test("a link opens a run at the event that it names", async () => {
  const run = await start("tools", say("add"));
  await visit(`run/${run.run_id}?at=2`, {}, async (page) => {
    await page.getByText(/^2 \/ \d+/).waitFor();
    assert.equal(await page.getByText("echo: 3").count(), 0);
  });
});

test("states are searched and compared, and a checkpoint is edited and forked", async () => {
  const run = await start("steps", { steps: 3 });
  await visit(`run/${run.run_id}?tab=checkpoints`, {}, async (page) => {
    const rows = page.locator(".checkpoints > li");
    await rows.first().getByText("the end").waitFor();
    await rows.nth(1).getByRole("link", { name: "Changes" }).click();
    await page.getByText("1 difference").waitFor();
    await page.getByText("done.1").waitFor();
    await page.getByLabel("Compare with").selectOption("");
    await page.getByLabel("Search", { exact: true }).fill("done");
    await page.getByText("done.0").waitFor();
    await page.getByRole("link", { name: "Checkpoints" }).click();
    await rows.first().getByRole("button", { name: "Edit" }).click();
    await page.getByLabel("Update", { exact: true }).fill('{"steps": 5');
    assert.equal(await page.getByRole("button", { name: "Write", exact: true }).isDisabled(), true);
    await page.getByLabel("Update", { exact: true }).fill('{"steps": 5}');
    await page.getByLabel(/^As if this node/).fill("step");
    await page.getByRole("button", { name: "Write", exact: true }).click();
    await rows.first().getByText("update").waitFor();
    await rows.first().getByRole("button", { name: "Fork" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Start the run" }).click();
    await page.waitForURL((url) => !url.hash.includes(run.run_id));
    await page.getByText("It completed.").waitFor();
  });
});

test("what came before the run is above; the cause is told with links", async () => {
  const api = client();
  const first = await start("chat", say("first"));
  const run = await api.runs.create(first.thread_id, "chat", { input: say("second"), streamMode: MODES });
  await api.runs.join(first.thread_id, run.run_id);
  await visit(`run/${run.run_id}`, {}, async (page) => {
    await page.getByText("echo: second").waitFor();
    await page.getByRole("button", { name: "2 messages above, from before this run" }).click();
    await page.getByText("echo: first").waitFor();
    await page.getByRole("link", { name: "Cause" }).click();
    await page.getByText(/Attempt 1 began on worker/).waitFor();
    await page.locator(".cause summary").nth(1).click();
    assert.match(await page.locator(".cause").getByRole("link").first().getAttribute("href"), /^#\/workers\?worker=/);
  });
});

const HOSTILE = [
  "<img src=x onerror=alert(1)><script>alert(2)</script>",
  "\u202egpj.exe\u202c",
  "\u001b[31mred\u001b[0m",
  "שלום עולם",
  "x".repeat(20_000),
];

test("hostile text is text: in messages, names, states and events", async () => {
  const api = client();
  const image = { type: "image_url", image_url: { url: "https://example.com/spy.png" } };
  const run = await start("chat", {
    messages: [{ role: "user", content: [{ type: "text", text: HOSTILE.join("\n") }, image, { type: "text", text: "the end" }] }],
  });
  await api.threads.update(run.thread_id, { metadata: { title: HOSTILE[0] } });
  await visit(`run/${run.run_id}`, {}, async (page) => {
    await page.getByText("It is not loaded").first().waitFor();
    await page.getByText("\\u202egpj.exe").first().waitFor();
    await page.getByText("\\u001b[31mred").first().waitFor();
    assert.equal(await page.locator("main script, main img").count(), 0);
    for (const tab of ["Events", "State", "Checkpoints", "Raw"]) {
      await page.getByRole("link", { name: tab, exact: true }).click();
      await page.getByText({ Events: "onerror", State: "messages", Checkpoints: "the end", Raw: "kwargs" }[tab]).first().waitFor();
      assert.equal(await page.locator("main script, main img").count(), 0);
      const across = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(across <= 0, `${tab} is wider than its window`);
    }
  });
});

test("without payload:read the structure is there and the values are hidden", async () => {
  const run = await start("chat", say("a secret word"), { key: KEYS.owner });
  await visit(`run/${run.run_id}`, { key: KEYS.reader }, async (page) => {
    await page.getByText("It completed.").waitFor();
    await page.getByText("Messages are payload").waitFor();
    assert.equal(await page.getByRole("button", { name: "Retry" }).count(), 0);
    await page.getByRole("link", { name: "Events" }).click();
    await page.getByRole("list", { name: "Events" }).getByText("messages").first().waitFor();
    assert.doesNotMatch(await page.locator("main").innerText(), /secret/);
    await page.getByRole("link", { name: "Raw" }).click();
    assert.doesNotMatch(await page.locator("main").innerText(), /secret/);
  });
  await visit(`run/${run.run_id}`, { key: KEYS.other, allow: [/404/] }, async (page) => {
    await page.getByRole("alert").waitFor();
  });
});

test("the log grows while the run executes, folds tracebacks, and is text whatever it says", async () => {
  const name = crypto.randomUUID();
  const run = await start("chat", say(`one @${name} two`), { ended: false });
  await visit(`run/${run.run_id}?tab=log`, {}, async (page) => {
    await page.getByRole("list", { name: "Log" }).getByText(`waits for @${name}`).waitFor();
    await open(name);
    await page.getByText("It completed.").waitFor();
  });
  const failed = await start("failing", { kind: "custom" });
  await visit(`run/${failed.run_id}?tab=log`, {}, async (page) => {
    await page.locator(".traceback summary").first().click();
    const raised = page.getByLabel("Traceback", { exact: true }).first();
    await raised.getByText(/ProviderError: key sk-123 was refused/).waitFor();
    assert.ok(await raised.evaluate((box) => box.scrollTop > 0), "it does not show its end");
    const record = page.getByRole("list", { name: "Log" }).getByRole("listitem");
    await record.getByText(/run.failed/).waitFor();
    await record.getByText("Traceback", { exact: true }).click();
    await record.getByText(/graphs.py/).waitFor();
    await accessible(page);
  });
  const hostile = await start("gate", { name: HOSTILE.join("\n") });
  await visit(`run/${hostile.run_id}?tab=log`, { size: "narrow" }, async (page) => {
    const list = page.getByRole("list", { name: "Log" });
    await list.getByText("\\u202egpj.exe").waitFor();
    await list.getByText("\\u001b[31mred").waitFor();
    assert.equal(await page.locator("main script, main img").count(), 0);
    const across = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(across <= 0, "the log is wider than its window");
  });
});

test("a log hides its texts without payload:read, and is for operators alone", async () => {
  const run = await start("failing", {}, { key: KEYS.owner });
  await visit(`run/${run.run_id}?tab=log`, { key: KEYS.reader }, async (page) => {
    const record = page.getByRole("list", { name: "Log" }).getByRole("listitem");
    await record.getByText("runlane.execution").waitFor();
    await record.getByText("hidden").waitFor();
    assert.doesNotMatch(await page.locator("main").innerText(), /boom/);
  });
  await visit(`run/${run.run_id}?tab=log`, { key: KEYS.owner }, async (page) => {
    await page.getByText(/What runs log is for operators/).waitFor();
    assert.equal(await page.getByRole("link", { name: "Log", exact: true }).or(page.getByText("Traceback")).count(), 0);
  });
});
