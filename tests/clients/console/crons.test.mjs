import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, client, look, visit } from "./kit.mjs";

test("a cron is seen with its next times and last runs, run now, paused and deleted", async () => {
  const open = client();
  await visit("crons", {}, (page) => page.getByText("No run starts by the clock yet").waitFor());
  const made = await open.crons.create("chat", {
    schedule: "0 9 * * 1-5",
    timezone: "Europe/Oslo",
    input: { messages: [{ role: "user", content: "good morning" }] },
  });
  await visit("crons", {}, async (page) => {
    await page.getByText("1 cron is on, and none is late.").waitFor();
    await page.getByRole("region", { name: "Crons" }).getByRole("link", { name: "chat", exact: true }).waitFor();
    await page.getByRole("link", { name: "0 9 * * 1-5" }).click();
    await page.waitForURL(new RegExp(`#/crons/${made.cron_id}`));
    await page.getByText(/^Its next run starts at/).waitFor();
    await page.locator(".slots-next li").nth(4).waitFor();
    await page.locator("main").getByRole("link", { name: "chat", exact: true }).waitFor();
    await page.getByText("It has made no run yet.").waitFor();
    await page.getByText("What its runs are asked for").click();
    await page.getByText("good morning").waitFor();
  });
  await look("cron", `crons/${made.cron_id}`, {}, ".slots-next");
  await visit(`crons/${made.cron_id}`, {}, async (page) => {
    await page.getByRole("button", { name: "Run now" }).click();
    await page.getByRole("dialog").getByText("Its next times stay as they are").waitFor();
    await page.getByRole("dialog").getByRole("button", { name: "Run now" }).click();
    await page.waitForURL(/#\/run\//);
  });
  await visit("crons", {}, async (page) => {
    const row = page.getByRole("region", { name: "Crons" });
    await row.getByRole("list", { name: /^Outcomes/ }).getByRole("link").waitFor();
    await row.getByRole("button", { name: "Run now" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Not now" }).click();
  });
  await look("crons", "crons", {}, ".outcomes a");
  await look("cron-run", `crons/${made.cron_id}`, {}, ".outcomes a");
  await visit(`crons/${made.cron_id}`, {}, async (page) => {
    const run = page.getByRole("list", { name: "Outcomes, the oldest first" }).getByRole("link");
    assert.match((await run.getAttribute("href")) ?? "", /#\/run\//);
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByText(/^It is paused/).waitFor();
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByText(/^Its next run starts at/).waitFor();
    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
    await page.waitForURL(/#\/crons$/);
    await page.getByText("No cron.").waitFor();
  });
  assert.equal(await open.crons.count(), 0);
});

test("an operator pauses and resumes the cron of an owner", async () => {
  const made = await client(KEYS.owner).crons.create("chat", { schedule: "0 9 * * 1-5", input: {} });
  await visit(`crons/${made.cron_id}`, { key: KEYS.admin }, async (page) => {
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByText(/^It is paused/).waitFor();
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByText(/^Its next run starts at/).waitFor();
  });
  await visit("crons", { key: KEYS.reader }, async (page) => {
    await page.getByText("1 cron is on, and none is late.").waitFor();
    assert.equal(await page.getByRole("button", { name: "Pause" }).count(), 0);
  });
});
