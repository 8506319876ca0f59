// What holds for every page, whoever looks and whatever happens to the server.
import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, OPEN, SIZES, accessible, client, visit } from "./kit.mjs";

const WORK = ["overview", "inbox", "runs", "threads", "playground"];
const THINGS = ["assistants", "crons", "webhooks", "store"];
const SERVER = ["workers", "limits", "audit", "doctor", "settings"];
const EVERYONE = [...WORK, ...THINGS, "usage"];
const ROLES = {
  "nobody in particular": [undefined, [...EVERYONE, ...SERVER]],
  "an operator": [KEYS.admin, [...EVERYONE, ...SERVER]],
  "a reader": [KEYS.reader, [...EVERYONE, ...SERVER.filter((name) => !["audit", "settings"].includes(name))]],
  "an owner": [KEYS.owner, EVERYONE],
};

const human = (text) => ({ messages: [{ type: "human", content: text }] });
const hostile = [
  "<script>document.title = 'taken'</script>",
  "<img src=x onerror=\"document.title='taken'\">",
  "javascript:document.title='taken'",
  "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
  "\u001b[31mred\u001b[0m \u0007 \u0008",
  "x".repeat(20_000),
].join("\n");

/** Two runs of each end, so that no page is empty. */
async function history(by) {
  for (const [graph, input] of [
    ["chat", human(hostile)],
    ["failing", {}],
    ["mailer", human("ada")],
    ["tools", human("weather")],
  ]) {
    const { thread_id } = await by.threads.create({ metadata: { title: hostile.slice(0, 300) } });
    await by.runs.wait(thread_id, graph, { input, raiseError: false });
  }
}

/** Whether the page has read what it shows. */
const read = (page) => page.waitForFunction(() => document.querySelector("main h1") && !document.querySelector("[aria-busy=true]"));

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
