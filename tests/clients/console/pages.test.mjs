// What holds for every page, whoever looks.
import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, SIZES, accessible, client, visit } from "./kit.mjs";
import { EVERYONE, SERVER, history, hostile, read } from "./pages.mjs";

const ROLES = {
  "nobody in particular": [undefined, [...EVERYONE, ...SERVER]],
  "an operator": [KEYS.admin, [...EVERYONE, ...SERVER]],
  "a reader": [KEYS.reader, [...EVERYONE, ...SERVER.filter((name) => !["audit", "settings"].includes(name))]],
  "an owner": [KEYS.owner, EVERYONE],
};

async function open(page, name) {
  await page.evaluate((hash) => (location.hash = hash), `#/${name}`);
  await page.waitForFunction((title) => document.title.toLowerCase().startsWith(title), name);
  await read(page);
}

for (const [who, [key, pages]] of Object.entries(ROLES)) {
  test(`${who} is offered the pages that they may read, and each of them reads`, async () => {
    if (key !== KEYS.reader && key !== KEYS.admin) await history(client(key));
    await visit("overview", { key }, async (page) => {
      await read(page);
      const offered = await page.locator("nav.rail a").evaluateAll((links) => links.map((link) => link.getAttribute("href")));
      assert.deepEqual(offered.map((href) => href.slice(2)).sort(), [...pages].sort());
      for (const name of pages) {
        await open(page, name);
        assert.equal(await page.getByRole("alert").count(), 0, `${name} has an error: ${await page.locator("main").innerText()}`);
      }
    });
  });
}

for (const [size, { width }] of Object.entries(SIZES)) {
  test(`every page fits ${width} pixels, and has no serious fault of accessibility`, async () => {
    await visit("overview", { size }, async (page) => {
      for (const name of [...EVERYONE, ...SERVER]) {
        await open(page, name);
        await accessible(page);
        const across = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(across <= 0, `${name} is ${across} pixels too wide`);
      }
    });
  });
}

test("what people and agents wrote is text on every page", async () => {
  const by = client();
  const [thread] = await by.threads.search({ limit: 1, metadata: { title: hostile.slice(0, 300) } });
  const [run] = await by.runs.list(thread.thread_id);
  for (const place of ["runs", "threads", "inbox", `thread/${thread.thread_id}`, `run/${run.run_id}`]) {
    await visit(place, {}, async (page) => {
      await read(page);
      assert.equal(await page.locator("main script, main img[src=x], main a[href^='javascript:']").count(), 0);
      assert.notEqual(await page.title(), "taken");
    });
  }
});

test("an address that names no tab of the page shows the first one", async () => {
  const [thread] = await client().threads.search({ limit: 1, metadata: { title: hostile.slice(0, 300) } });
  await visit(`thread/${thread.thread_id}?tab=none`, {}, async (page) => {
    await page.locator(".tabs [aria-current]", { hasText: "Conversation and state" }).waitFor();
  });
});
