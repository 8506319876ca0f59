// What holds for every page, whatever happens to the tab and to the server.
import assert from "node:assert/strict";
import { before, test } from "node:test";
import { OPEN, accessible, visit } from "./kit.mjs";
import { EVERYONE, SERVER, history, read } from "./pages.mjs";

before(() => history());

test("a hidden tab asks for nothing, and reads again when it is looked at", async () => {
  for (const name of [...EVERYONE, ...SERVER]) {
    await visit(name, {}, async (page) => {
      await read(page);
      const show = (hidden) =>
        page.evaluate((value) => {
          Object.defineProperty(document, "hidden", { value, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }, hidden);
      await page.clock.install();
      await show(true);
      await page.clock.runFor(1_000);
      const asked = [];
      page.on("request", (request) => asked.push(request.url()));
      await page.clock.runFor(120_000);
      assert.deepEqual(asked, [], name);
      assert.ok(await page.locator(".contact", { hasText: "paused" }).count());
    });
  }
});

test("while the server does not answer the page says so, keeps what it has, and goes on afterwards", async () => {
  await visit("runs", { allow: [/Failed to load resource/] }, async (page, context) => {
    await page.locator("tbody tr").first().waitFor();
    await context.setOffline(true);
    await page.getByText("connection lost").waitFor();
    await page.locator(".fresh-stale").waitFor();
    assert.ok((await page.locator("tbody tr").count()) > 0);
    await accessible(page);
    await context.setOffline(false);
    await page.locator(".fresh-live").waitFor();
  });
});

test("a page works with a prefix before its path", async () => {
  await visit("overview", { allow: [] }, async (page) => {
    await page.route("**/agents/v1/**", (route) => {
      const url = route.request().url().replace("/agents/v1", "");
      return route.continue({ url });
    });
    await page.goto(`${OPEN}/agents/v1/console/`);
    await read(page);
    await page.getByRole("link", { name: "Runs" }).click();
    await page.locator("tbody tr").first().waitFor();
  });
});
