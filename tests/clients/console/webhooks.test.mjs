import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { KEYS, client, look, visit } from "./kit.mjs";

const SAY = { input: { messages: [{ role: "user", content: "hello" }] } };
let broken = true;
const seen = [];
const receiver = createServer((request, response) => {
  seen.push(request.url);
  response.writeHead(broken ? 400 : 200).end();
});
let url;

before(async () => {
  await new Promise((done) => receiver.listen(0, "127.0.0.1", done));
  url = `http://127.0.0.1:${receiver.address().port}/hooks/runs`;
});
after(() => receiver.close());

test("a failing webhook is seen with its attempts, and sent again", async () => {
  const open = client();
  await visit("webhooks", {}, (page) => page.getByText("No run has a webhook yet").waitFor());
  const { thread_id: thread } = await open.threads.create();
  const run = await open.runs.create(thread, "chat", { ...SAY, webhook: url });
  await visit("webhooks", {}, async (page) => {
    await page.getByText(/tried again|^failed/).first().waitFor();
    await page.getByRole("link", { name: url }).click();
    await page.waitForURL(new RegExp(`#/webhooks/${run.run_id}`));
    await page.getByRole("region", { name: "Attempts" }).getByText("400").first().waitFor();
    broken = false;
    await page.getByRole("button", { name: "Redeliver" }).click();
    await page.getByText(/^Delivered after/).waitFor();
    await page.getByRole("link", { name: "All webhooks" }).click();
    await page.getByText("Of 1 delivery, none failed.").waitFor();
  });
  assert.ok(seen.length >= 2);
  await look("webhooks", "webhooks", {}, "text=none failed");
  await look("webhook", `webhooks/${run.run_id}`, {}, "text=Delivered after");
});

test("an operator without payload sees no address, and another owner no delivery", async () => {
  const acme = client(KEYS.owner);
  const { thread_id: thread } = await acme.threads.create();
  const run = await acme.runs.create(thread, "chat", { ...SAY, webhook: url });
  await acme.runs.join(thread, run.run_id);
  await visit(`webhooks/${run.run_id}`, { key: KEYS.reader }, async (page) => {
    await page.getByText(/^Delivered after/).waitFor();
    await page.getByText("hidden", { exact: true }).waitFor();
    assert.equal(await page.getByText(url).count(), 0);
  });
  await visit("webhooks", { key: KEYS.other }, async (page) => page.getByText("No run has a webhook yet").waitFor());
});
