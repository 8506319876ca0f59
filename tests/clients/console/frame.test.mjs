import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYED, KEYS, accessible, look, visit } from "./kit.mjs";

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
