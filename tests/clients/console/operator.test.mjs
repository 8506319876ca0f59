// As an operator would who does not know the server: what is broken is found from the overview in at most three clicks.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, test } from "node:test";
import { KEYS, accessible, client, visit } from "./kit.mjs";

const acme = client(KEYS.owner);
const umbrella = client(KEYS.other);
const say = (content) => ({ input: { messages: [{ role: "user", content }] } });
const thread = async (api) => (await api.threads.create()).thread_id;
const failing = [];
let receives = false;
const receiver = createServer((_, response) => response.writeHead(receives ? 200 : 500).end());
let stuck;

/** Make what the tests after the first one find. */
async function work() {
  await new Promise((done) => receiver.listen(0, "127.0.0.1", done));
  const webhook = `http://127.0.0.1:${receiver.address().port}/hook`;
  await acme.runs.wait(await thread(acme), "chat", { ...say("bill"), webhook });
  for (let number = 0; number < 4; number++) {
    const broken = await thread(acme);
    failing.push(broken);
    await acme.runs.wait(broken, "billing", { input: {}, raiseError: false });
  }
  await acme.runs.wait(await thread(acme), "reviewed", say("a letter to a customer"));
  const lane = await thread(acme);
  const holds = await acme.runs.create(lane, "chat", say("@never"));
  const waits = await acme.runs.create(lane, "chat", { ...say("after it"), multitaskStrategy: "enqueue" });
  stuck = { lane, holds, waits };
  for (let number = 0; number < 30; number++) await umbrella.runs.create(await thread(umbrella), "chat", say("@never"));
}
after(() => receiver.close());

/** Open the overview, and count the clicks that lead to a thing. */
async function operate(what, key = KEYS.admin) {
  await visit("overview", { key }, async (page) => {
    await page.getByRole("heading", { name: "Needs attention" }).waitFor();
    let clicks = 0;
    await what(page, async (locator) => {
      clicks += 1;
      assert.ok(clicks <= 3, "it takes more than three clicks");
      await locator.click();
    });
  });
}

const concern = (page, text) => page.locator(".concerns li").filter({ hasText: text }).locator(".concern-to");

test("the newest build is the one that was deployed last, before a run of it has ended", async () => {
  await visit("overview", { key: KEYS.admin }, async (page) => {
    const row = page.getByRole("region", { name: "Builds" }).getByRole("row").filter({ hasText: "newest" });
    assert.equal(await row.getByRole("link").first().innerText(), "after");
  });
});

test("a server that executes nothing does not tell which build is the newest", async () => {
  await visit("overview", { key: KEYS.admin }, async (page) => {
    await page.route("**/operator/workers", async (route) => {
      const answer = await (await route.fetch()).json();
      const server = { ...answer.workers[0], worker_id: "server", build: "other", capacity: 0, started_at: answer.as_of };
      await route.fulfill({ json: { ...answer, workers: [...answer.workers, server], builds: [...answer.builds, { ...answer.builds[0], build: "other" }] } });
    });
    await page.reload();
    const table = page.getByRole("region", { name: "Builds" });
    await table.getByRole("row").filter({ hasText: "other" }).waitFor();
    assert.match(await table.getByRole("row").filter({ hasText: "newest" }).innerText(), /after/);
  });
});

test("the overview says what is wrong", async () => {
  await work();
  await operate(async (page) => {
    for (const text of ["A run of chat has waited", "of owner umbrella", "Since build after came", "webhook", "waits for an answer"]) {
      await concern(page, text).waitFor();
    }
    await accessible(page);
    if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/operator.png`, fullPage: true });
  });
});

test("a stuck run is found, and goes on when what it waits for is cancelled", async () => {
  await operate(async (page, click) => {
    await click(concern(page, "A run of chat has waited"));
    await page.waitForURL(new RegExp(`#/run/${stuck.waits.run_id}`));
    await click(page.locator(`.sentence a[href$="${stuck.holds.run_id}"]`));
    await page.waitForURL(new RegExp(`#/run/${stuck.holds.run_id}`));
    await page.getByRole("button", { name: "Cancel" }).first().click();
    await page.getByRole("dialog").getByRole("button", { name: /cancel/i }).first().click();
    await page.locator(".status", { hasText: "interrupted" }).first().waitFor();
  });
});

test("a tenant that floods is found, and its waiting runs are cancelled", async () => {
  await operate(async (page, click) => {
    await click(concern(page, /waiting runs are of owner umbrella/));
    await page.waitForURL(/#\/runs\?.*owner=umbrella/);
    const cause = page.getByText("waits for a slot", { exact: true }).first();
    assert.match(await cause.getAttribute("title"), /within the limits of its owner, assistant and graph$/);
    await page.getByLabel("Select all rows").check();
    await page.getByRole("button", { name: /^Cancel/ }).first().click();
    await page.getByRole("dialog").getByRole("button", { name: /^Cancel/ }).first().click();
    await page.getByRole("dialog").getByText(/cancelled/).first().waitFor();
    await page.keyboard.press("Escape");
    await page.getByText("No run matches.").first().waitFor();
  });
});

test("a graph that fails since a deploy is found with its error, and its runs are retried once it is mended", async () => {
  await operate(async (page, click) => {
    await click(concern(page, "Since build after came, 4 of"));
    await page.waitForURL(/#\/overview\?build=after/);
    const group = page.getByRole("row").filter({ hasText: "KeyError" });
    await group.getByText("new in this build").waitFor();
    await click(group.getByRole("link", { name: "KeyError" }));
    await page.getByText(/KeyError/).first().waitFor();
    await acme.runs.wait(null, "gate", { input: { name: "mended" } });
    await page.getByRole("button", { name: "Retry" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Retry" }).click();
    await page.locator(".status", { hasText: "success" }).first().waitFor();
  });
});

test("a failing webhook is found with its answers, and sent again once its receiver works", async () => {
  await operate(async (page, click) => {
    await click(concern(page, /webhook fails, and is tried again/));
    await page.waitForURL(/#\/webhooks\?status=pending/);
    await click(page.getByRole("region", { name: "Deliveries" }).getByRole("link", { name: "show" }));
    await page.getByRole("region", { name: "Attempts" }).getByText("500").first().waitFor();
    receives = true;
    await page.getByRole("button", { name: "Redeliver" }).click();
    await page.getByText(/^Delivered after/).waitFor();
  });
});

test("a damaged thread is found, and repaired after a preview", async () => {
  await operate(async (page, click) => {
    await click(concern(page, /The doctor found 1 thing/));
    const finding = page.getByRole("article", { name: "thread.status" });
    await finding.locator(`a[href$="${process.env.DAMAGED}"]`).waitFor();
    await finding.getByRole("button", { name: "Repair (preview)" }).click();
    await page.getByRole("dialog").getByText("will be repaired").waitFor();
    await page.getByRole("dialog").getByRole("button", { name: "Repair" }).click();
    await page.getByRole("dialog").getByText("● repaired").waitFor();
    await page.getByRole("button", { name: "Close" }).click();
    await page.getByText("Nothing is wrong with the database.").waitFor();
  });
});

test("an unanswered approval is found, and answered for its owner", async () => {
  await operate(async (page, click) => {
    await click(concern(page, "1 thread waits for an answer"));
    await page.getByText("send?").waitFor();
    await page.getByRole("button", { name: /JSON/ }).click();
    await page.getByLabel("Answer, as JSON").fill('{"decisions": [{"type": "approve"}]}');
    await page.getByRole("button", { name: "Answer", exact: true }).click();
    await page.getByText("No agent waits for a person.").waitFor();
    await page.getByRole("row").filter({ hasText: "reviewed" }).getByText("success").waitFor();
    await page.getByRole("row").filter({ hasText: "reviewed" }).getByText("ada").waitFor();
  });
});
