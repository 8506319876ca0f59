// The console in a real browser. A page that complains, breaks its policy or asks another host fails the test.
import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before } from "node:test";
import { Client } from "@langchain/langgraph-sdk";
import { chromium } from "playwright-core";

export const OPEN = process.env.RUNLANE_URL;
export const KEYED = process.env.KEYED_URL;
export const KEYS = {
  admin: process.env.ADMIN_KEY,
  reader: process.env.READER_KEY,
  owner: process.env.OWNER_KEY,
  other: process.env.OTHER_KEY,
};
export const SIZES = { wide: { width: 1440, height: 900 }, narrow: { width: 375, height: 760 } };
/** Where screenshots go; without it none are made. */
const SHOTS = process.env.SHOTS;
const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser;
before(async () => {
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"].concat([
      "--disable-component-update",
      "--disable-sync",
    ]),
  });
});
after(() => browser?.close());

/** The official client of the server that asks nobody, or of the other one with a key. */
export function client(key) {
  return new Client(key ? { apiUrl: KEYED, apiKey: key } : { apiUrl: OPEN, apiKey: null });
}

/**
 * Open the console at *place*, such as `runs?status=error`, do *what*, and assert that the page complained of nothing.
 *
 * Options: `key` (logs in at the server that asks for keys), `url`, `size`, `dark`, `reducedMotion`, `allow` (complaints that
 * are expected: regular expressions), `trace` (its name: what happens is recorded where screenshots go).
 */
export async function visit(place, options, what) {
  const { key, size = "wide", dark = false, reducedMotion = false, allow = [], trace } = options;
  const recorded = SHOTS && trace;
  const url = options.url ?? (key === undefined ? OPEN : KEYED);
  const context = await browser.newContext({
    viewport: SIZES[size],
    colorScheme: dark ? "dark" : "light",
    reducedMotion: reducedMotion ? "reduce" : "no-preference",
    permissions: ["clipboard-read", "clipboard-write"],
    locale: "en-GB",
    timezoneId: "Europe/Oslo",
  });
  const complaints = [];
  const page = await context.newPage();
  page.setDefaultTimeout(40_000);
  page.on("pageerror", (error) => complaints.push(`error: ${error.stack ?? error}`));
  page.on("console", (message) => message.type() === "error" && complaints.push(`console: ${message.text()} ${message.location().url}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(`${url}/`) && !/^(data|blob):/.test(request.url())) complaints.push(`foreign: ${request.url()}`);
  });
  await context.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
  });
  if (key) {
    await context.addInitScript((secret) => {
      sessionStorage.setItem("runlane.credential", JSON.stringify({ kind: "key", secret }));
    }, key);
  }
  if (recorded) await context.tracing.start({ screenshots: true, snapshots: true });
  try {
    await page.goto(`${url}/console/#/${place}`);
    await what(page, context);
  } catch (error) {
    const text = await page.locator("body").innerText().catch(() => "");
    throw new Error(`${error.stack}\nThe page ${page.url()}:\n${text}\n${complaints.join("\n")}`);
  } finally {
    if (SHOTS) await page.screenshot({ path: `${SHOTS}/last.png` }).catch(() => {});
    if (recorded) await context.tracing.stop({ path: `${SHOTS}/${trace}.trace.zip` });
    await context.close();
  }
  assert.deepEqual(
    complaints.filter((one) => !allow.some((pattern) => pattern.test(one))),
    [],
  );
}

/** Assert that axe finds nothing serious in what the page shows now. Source: WCAG 2.2, levels A and AA. */
export async function accessible(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"], resultTypes: ["violations"] }),
  );
  const found = violations
    .filter((one) => ["serious", "critical"].includes(one.impact))
    .map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).join("\n")}`);
  assert.deepEqual(found, []);
}

/** Look at *place* as it is once *ready* (a locator's selector) is there: wide and narrow, light and dark, each by axe. */
export async function look(name, place, options, ready) {
  await visit(place, options, async (page) => {
    for (const size of Object.keys(SIZES)) {
      for (const colorScheme of ["light", "dark"]) {
        await page.setViewportSize(SIZES[size]);
        await page.emulateMedia({ colorScheme });
        await page.locator(ready).first().waitFor();
        await accessible(page);
        const across = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(across <= 0, `the page ${name} is ${across} pixels wider than a window of ${SIZES[size].width}`);
        if (!SHOTS) continue;
        await mkdir(SHOTS, { recursive: true });
        await page.screenshot({ path: `${SHOTS}/${name}-${size}-${colorScheme}.png`, fullPage: true });
      }
    }
  });
}
