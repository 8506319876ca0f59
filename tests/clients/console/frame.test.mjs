import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYED, KEYS, accessible, client, look, visit } from "./kit.mjs";

test("a path without a slash leads to the page, and every file is of this server", async () => {
  await visit("", { allow: [] }, async (page) => {
    await page.goto(page.url().replace(/\/console\/.*/, "/console"));
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    assert.match(page.url(), /\/console\/(#.*)?$/);
  });
});

test("keys open pages, the palette and the help", async () => {
  await visit("overview", {}, async (page) => {
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    await page.keyboard.press("g");
    await page.keyboard.press("r");
    await page.getByRole("heading", { name: "Runs" }).waitFor();
    await page.keyboard.press("?");
    await page.getByRole("dialog", { name: "Keys" }).waitFor();
    await accessible(page);
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await page.keyboard.press("Control+k");
    await page.getByRole("combobox", { name: "Page or action" }).fill("inb");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Inbox" }).waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type("rate limit");
    await page.keyboard.press("Enter");
    await page.waitForURL(/runs\?text=rate\+limit/);
  });
});

test("a server that asks for keys shows a form; a wrong key is refused and kept nowhere", async () => {
  await visit("overview", { url: KEYED, allow: [/status of 401/] }, async (page) => {
    const field = page.getByLabel("API key", { exact: true });
    await field.fill("rlk_0000000000000000_wrong");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByRole("alert").waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await accessible(page);
    await field.fill(KEYS.admin);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByRole("heading", { name: "Overview" }).waitFor();
    assert.equal(await page.evaluate(() => localStorage.length + document.cookie.length), 0);
  });
});

test("a second tab takes the key of the first, and is logged out with it", async () => {
  await visit("overview", { url: KEYED, allow: [/status of 401/] }, async (page, context) => {
    await page.getByLabel("API key", { exact: true }).fill(KEYS.owner);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByText("acme").waitFor();
    const second = await context.newPage();
    await second.goto(page.url());
    await second.getByText("acme").waitFor();
    assert.equal(await second.getByRole("link", { name: "Audit" }).count(), 0);
    await second.getByText("acme").click();
    await second.getByRole("button", { name: "Log out" }).click();
    await page.getByRole("button", { name: "Log in" }).waitFor();
  });
});

test("a tab that asks for a key takes the one that another tab logs in with later", async () => {
  await visit("overview", { url: KEYED, allow: [/status of 401/] }, async (page, context) => {
    const second = await context.newPage();
    await second.goto(page.url());
    await second.getByRole("button", { name: "Log in" }).waitFor();
    await page.getByLabel("API key", { exact: true }).fill(KEYS.owner);
    await page.getByRole("button", { name: "Log in" }).click();
    await second.getByText("acme").waitFor();
  });
});

test("the login fits every screen", async () => {
  await look("login", "overview", { url: KEYED, allow: [/status of 401/] }, "form");
});

test("the navigation counts the threads that wait for a person, as far as ten", async () => {
  const by = client();
  const ask = async () => by.runs.wait((await by.threads.create()).thread_id, "mailer", { input: { messages: [{ type: "human", content: "ada" }] } });
  await visit("runs", {}, async (page) => {
    await page.getByRole("heading", { name: "Runs" }).waitFor();
    assert.equal(await page.locator(".rail .count").count(), 0);
    await ask();
    await page.getByRole("link", { name: "Inbox 1", exact: true }).waitFor();
    for (let more = 0; more < 10; more += 1) await ask();
    await page.getByRole("link", { name: "Inbox 10+", exact: true }).waitFor();
    await accessible(page);
  });
});

test("a run or thread that is pointed at tells what it does, to the keyboard too", async () => {
  const by = client();
  const { thread_id } = await by.threads.create({ metadata: { title: "Trip to Oslo" } });
  await by.runs.wait(thread_id, "failing", { input: {}, raiseError: false });
  const [{ run_id }] = await by.runs.list(thread_id);
  await visit(`runs?thread=${thread_id}`, {}, async (page) => {
    const card = page.getByRole("tooltip");
    await page.locator("tbody").getByRole("link", { name: run_id.slice(-8) }).hover();
    await card.getByText("It failed with ValueError.").waitFor();
    assert.ok((await card.innerText()).includes(run_id));
    const [chip, beside] = [await page.locator("tbody .chip").first().boundingBox(), await card.boundingBox()];
    assert.ok(Math.abs(beside.y - chip.y - chip.height) < 2, "it is below the chip");
    await accessible(page);
    await card.hover();
    await page.mouse.move(0, 0);
    await card.waitFor({ state: "detached" });
    await page.locator("tbody").getByRole("link", { name: thread_id.slice(-8) }).focus();
    await card.getByText("Trip to Oslo").waitFor();
    assert.ok((await card.innerText()).includes(thread_id));
    await page.keyboard.press("Escape");
    await card.waitFor({ state: "detached" });
  });
});
