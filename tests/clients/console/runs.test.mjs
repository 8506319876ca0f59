import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYED, KEYS, OPEN, accessible, client, look, visit } from "./kit.mjs";

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
    await rows.nth(4).waitFor();
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
    await page.getByText("1 run matches: 1 failed.").waitFor();
    await page.getByText("ValueError").waitFor();
  });
  await visit(`runs?thread=${held.thread_id}&status=pending`, {}, async (page) => {
    await page.getByRole("link", { name: second.run_id.slice(-8) }).waitFor();
    assert.equal(await page.locator("tbody tr").count(), 1);
  });
  await visit(`runs?thread=${held.thread_id}&waits=lane`, {}, async (page) => {
    await page.getByText("1 run matches: 1 waiting").waitFor();
  });
  await visit("runs?cause=paused&tokens=>5", {}, async (page) => {
    await page.getByText("No run matches.").first().waitFor();
  });
  await visit("runs?graph=chat&cost=>0.01", {}, async (page) => {
    await page.getByText(/ runs? match/).waitFor();
    await page.getByRole("columnheader", { name: "Cost" }).waitFor();
  });
  await visit("runs?cost=>1000", {}, async (page) => page.getByText("No run matches.").first().waitFor());
  await look("runs", "runs", {}, ".status-paused");
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

test("a long list goes on by More, and rows that are new wait while one has scrolled", async () => {
  const api = client();
  await api.runs.createBatch(Array.from({ length: 110 }, () => ({ assistantId: "steps", input: { steps: 0 } })));
  await visit("runs?graph=steps", {}, async (page) => {
    await page.getByText("100 or more runs match: 100 succeeded.").waitFor();
    await page.getByRole("button", { name: "More" }).click();
    await page.getByText("110 runs match: 110 succeeded.").waitFor();
    assert.equal(await page.getByRole("button", { name: "More" }).count(), 0);
    const top = await page.locator("tbody tr a").first().innerText();
    await page.mouse.move(700, 500);
    await page.mouse.wheel(0, 400);
    await page.waitForFunction(() => scrollY > 160);
    await api.runs.wait(null, "steps", { input: { steps: 0 } });
    await page.getByRole("button", { name: "1 new" }).waitFor();
    assert.equal(await page.locator("tbody tr a").first().innerText(), top);
    await page.getByRole("button", { name: "1 new" }).click();
    await page.waitForFunction((was) => document.querySelector("tbody tr a").textContent !== was, top);
  });
});

test("selected runs are cancelled after a preview, with what became of each", async () => {
  const api = client();
  const thread = await api.threads.create();
  const running = await api.runs.create(thread.thread_id, "chat", say("wait @runs-1"));
  await api.runs.create(thread.thread_id, "chat", { ...say("next"), multitaskStrategy: "enqueue" });
  const other = await api.threads.create();
  await api.runs.wait(other.thread_id, "steps", { input: { steps: 0 } });
  const [ended] = await api.runs.list(other.thread_id);
  await visit(`runs?graph=chat&status=pending,running`, {}, async (page) => {
    await page.getByRole("link", { name: running.run_id.slice(-8) }).first().waitFor();
    await page.getByLabel(`Select ${running.run_id}`).check();
    await page.getByText("1 run selected").waitFor();
    await page.getByRole("button", { name: "Roll back" }).click();
    await page.getByText("1 match; 1 would be rolled back.").waitFor();
    await accessible(page);
    await page.getByRole("button", { name: "Leave them" }).click();
    await page.getByLabel("all that match the filter").check();
    await page.getByRole("button", { name: "Cancel", exact: true }).click();
    await page.getByText(/\d match; \d would be cancelled\./).waitFor();
    await page.getByLabel("Reason, for the audit").fill("tried out");
    await page.getByRole("dialog").getByRole("button", { name: /^Cancel \d runs$/ }).click();
    await page.getByText(/^\d cancelled\.$/).waitFor();
    await accessible(page);
    await page.getByRole("button", { name: "Close" }).click();
    await page.getByText("No run matches.").first().waitFor();
  });
  assert.equal((await api.runs.get(thread.thread_id, running.run_id)).status, "interrupted");
  await visit(`runs?thread=${other.thread_id}`, {}, async (page) => {
    await page.getByLabel(`Select ${ended.run_id}`).check();
    await page.getByRole("button", { name: "Cancel", exact: true }).click();
    await page.getByText("1 cannot be cancelled: it has ended.").waitFor();
    assert.equal(await page.getByRole("dialog").getByRole("button", { name: /^Cancel/ }).count(), 0);
  });
});

test("failed runs are retried once, and who may not retry is not offered it", async () => {
  const owner = client(KEYS.owner);
  const thread = await owner.threads.create();
  await owner.runs.wait(thread.thread_id, "failing", { input: { kind: "plain" }, raiseError: false });
  const [failed] = await owner.runs.list(thread.thread_id);
  await visit("runs?status=error", { key: KEYS.owner }, async (page) => {
    await page.getByLabel(`Select ${failed.run_id}`).check();
    await page.getByRole("button", { name: "Retry" }).click();
    await page.getByRole("button", { name: "Retry 1 run" }).click();
    await page.getByText("1 retried.").waitFor();
    await accessible(page);
  });
  assert.equal((await owner.runs.list(thread.thread_id)).length, 2);
  await visit("runs", { key: KEYS.reader }, async (page) => {
    await page.getByText(/2 runs/).waitFor();
    assert.equal(await page.getByRole("checkbox").count(), 0);
    assert.doesNotMatch(await page.locator("body").innerText(), /boom/);
  });
  await visit("runs?text=boom", { key: KEYS.reader, allow: [/status of 403/] }, async (page) => {
    await page.getByText("needs the scope payload:read").waitFor();
  });
});

test("a view is saved on the server, opened, replaced and deleted", async () => {
  await visit("runs?status=error&graph=failing", {}, async (page) => {
    await page.getByRole("button", { name: "Save view" }).click();
    await page.getByLabel("Name").fill("Night <b>shift");
    await accessible(page);
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await page.getByRole("link", { name: "Night <b>shift" }).waitFor();
    await page.getByRole("link", { name: "All", exact: true }).click();
    await page.reload();
    await page.getByRole("link", { name: "Night <b>shift" }).click();
    await page.waitForURL(/graph=failing/);
    await page.getByRole("button", { name: "Delete view" }).click();
    await page.getByRole("button", { name: "Delete", exact: true }).click();
    await page.getByRole("link", { name: "Night <b>shift" }).waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Save view" }).waitFor();
  });
});

test("a view is saved and opened whatever its name is, or the name is refused with the reason", async () => {
  await visit("runs?status=error&graph=failing", { allow: [/status of 422/] }, async (page) => {
    const save = async (name) => {
      await page.getByRole("button", { name: "Save view" }).click();
      await page.getByLabel("Name").fill(name);
      return page.getByRole("dialog").getByRole("button", { name: "Save", exact: true });
    };
    const refused = [
      [".", "“.” cannot be a name"],
      [" .. ", "“..” cannot be a name"],
      ["nights/", "cannot end with '/'"],
      ["/", "must have 1 to 128 characters"],
      ["a\u200bb", "all of them printable"],
    ];
    for (const [name, reason] of refused) {
      await (await save(name)).click();
      await page.getByRole("dialog").getByText(reason).waitFor();
      await page.keyboard.press("Escape");
    }
    for (const name of ["", "  \u3000 "]) {
      assert.equal(await (await save(name)).isDisabled(), true);
      await page.keyboard.press("Escape");
    }
    for (const name of ["a/b", "/a", "../a", "...", "%2F", "%2e%2e", "a?b#c&d=e", "\\", "🌙 night", "é".repeat(128)]) {
      await (await save(name)).click();
      const view = page.getByRole("link", { name, exact: true });
      await view.waitFor();
      await page.getByRole("link", { name: "All", exact: true }).click();
      await page.waitForURL(/#\/runs$/);
      await view.click();
      await page.waitForURL(/graph=failing/);
      await page.getByRole("button", { name: "Delete view" }).click();
      await page.getByRole("button", { name: "Delete", exact: true }).click();
      await view.waitFor({ state: "detached" });
    }
  });
});

test("an operator shares a view, which others open and only its owner deletes", async () => {
  await visit("runs?cause=deadline", { key: KEYS.admin }, async (page) => {
    await page.getByRole("button", { name: "Save view" }).click();
    await page.getByLabel("Name").fill("Too late");
    await page.getByLabel("Show it to all operators").check();
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await page.getByRole("link", { name: "Too late" }).waitFor();
  });
  await visit("runs", { key: KEYS.reader }, async (page) => {
    await page.getByRole("link", { name: "Too late" }).click();
    await page.waitForURL(/cause=deadline/);
    await page.getByText("No run matches.").first().waitFor();
    assert.equal(await page.getByRole("button", { name: "Delete view" }).count(), 0);
  });
  await visit("runs", { key: KEYS.owner }, async (page) => {
    await page.getByRole("link", { name: "Cancelled" }).waitFor();
    assert.equal(await page.getByRole("link", { name: "Too late" }).count(), 0);
  });
});

test("an operator's list is live without payload, and shows it on a wish that the audit has", async () => {
  const owner = client(KEYS.owner);
  const { thread_id: id } = await owner.threads.create();
  await owner.runs.wait(id, "failing", { input: { kind: "plain" }, raiseError: false });
  const reads = async () => {
    const answer = await fetch(`${KEYED}/audit?action=payload.read`, { headers: { "X-Api-Key": KEYS.admin } });
    return (await answer.json()).length;
  };
  const before = await reads();
  await visit(`runs?thread=${id}`, { key: KEYS.admin }, async (page) => {
    await page.getByText("1 run matches: 1 failed.").waitFor();
    await page.getByText("ValueError").waitFor();
    assert.equal(await page.getByText("boom").count(), 0);
    assert.equal(await reads(), before);
    await page.getByLabel("Show payload").check();
    await page.getByText("ValueError: boom").waitFor();
    await page.getByText(/● as of /).waitFor();
    assert.equal(await reads(), before + 1);
  });
});

test("an age for which there is no date is refused, in the field and in the URL", async () => {
  await visit("runs?age=%3E99999999999h", {}, async (page) => {
    await page.getByText("“age:>99999999999h” is no age").waitFor();
    const field = page.getByRole("combobox", { name: "Filter of runs" });
    await field.fill("__proto__:x");
    await field.press("Enter");
    await page.getByText("There is no filter “__proto__:”").waitFor();
    await page.keyboard.press("Control+k");
    await page.getByRole("dialog").waitFor();
  });
});

test("an action on many runs that is left says how far it came", async () => {
  const api = client();
  const { thread_id } = await api.threads.create();
  for (let at = 0; at < 3; at++) await api.runs.create(thread_id, "chat", { ...say("wait @never-opened-2"), multitaskStrategy: "enqueue" });
  await visit(`runs?thread=${thread_id}`, {}, async (page) => {
    await page.getByLabel("Select all rows").check();
    await page.getByRole("button", { name: "Cancel", exact: true }).click();
    const dialog = page.getByRole("dialog");
    let begin, go;
    const begun = new Promise((done) => (begin = done));
    const answered = new Promise((done) => (go = done));
    await page.route("**/runs/bulk", async (route) => {
      begin();
      await answered;
      await route.continue();
    });
    await dialog.getByRole("button", { name: "Cancel 3 runs" }).click();
    await begun;
    await page.keyboard.press("Escape");
    go();
    await dialog.getByText("3 cancelled.").waitFor();
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "detached" });
  });
});

test("a refused filter shows nothing, reads nothing and offers no action, until it is written right", async () => {
  const api = client();
  const { thread_id } = await api.threads.create();
  await api.runs.wait(thread_id, "steps", { input: { steps: 0 } });
  for (const [place, label, reason] of [
    ["runs?status=nonsense&graph=steps", "Filter of runs", "“status:nonsense” is none of"],
    ["threads?status=nonsense", "Filter of threads", "“status:nonsense” is none of"],
    ["threads?colour=red", "Filter of threads", "There is no filter “colour:”"],
    ["assistants?colour=red", "Filter of assistants", "There is no filter “colour:”"],
    ["store?filter=red", "Filter of items", "“red” is no JSON object"],
  ]) {
    const searches = [];
    await visit("settings", {}, async (page) => {
      page.on("request", (request) => /(runs|threads|assistants|items)\/search$/.test(request.url()) && searches.push(request.url()));
      await page.evaluate((hash) => (location.hash = hash), `#/${place}`);
      await page.getByRole("alert").getByText(reason).waitFor();
      await page.evaluate(() => new Promise((painted) => requestAnimationFrame(() => setTimeout(painted))));
      assert.equal(await page.locator("tbody, .empty, .views, .sentence").count(), 0);
      assert.match(await page.getByRole("combobox", { name: label }).inputValue(), /nonsense|red/);
      assert.deepEqual(searches, []);
      await page.getByRole("button", { name: "Clear" }).click();
      await page.locator("tbody, .empty").first().waitFor();
      assert.equal(new URL(page.url()).hash, `#/${place.split("?")[0]}`);
    });
  }
  await visit("runs?graph=steps", {}, async (page) => {
    await page.getByLabel("Select all rows").check();
    await page.getByText("all that match the filter").waitFor();
    const field = page.getByRole("combobox", { name: "Filter of runs" });
    await field.fill("graph:steps status:nonsense");
    await field.press("Enter");
    await page.getByText("“status:nonsense” is none of").waitFor();
    assert.equal(await page.locator("tbody, .bulk").count(), 0);
    assert.equal(await page.getByText("all that match the filter").count(), 0);
    await field.fill("graph:steps");
    await field.press("Enter");
    await page.locator("tbody tr").first().waitFor();
  });
  await visit("crons?state=nonsense", {}, async (page) => {
    await page.getByText("“state=nonsense” is none of on, off.").waitFor();
    assert.equal(await page.locator("tbody, .empty").count(), 0);
  });
});
