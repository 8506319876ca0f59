// Watches for long, in two tabs, and prints what they hold in memory after each lap: one stays on the page of a run that streams
// all the time; the other goes from page to page while runs come and end.
// Usage: RUNLANE_URL=… CHROMIUM=… node tests/clients/console/soak.mjs [minutes] [events a second]
import { Client } from "@langchain/langgraph-sdk";
import { chromium } from "playwright-core";

const [minutes = 60, rate = 100] = process.argv.slice(2).map(Number);
const url = process.env.RUNLANE_URL;
const api = new Client({ apiUrl: url, apiKey: null });
const LAP_S = 120;
const PAGES = ["#/", "#/runs", "#/threads", "#/inbox", "#/workers", "#/usage"];

async function start(assistant, input, streamMode) {
  const { thread_id } = await api.threads.create();
  return api.runs.create(thread_id, assistant, { input, streamMode });
}

const flood = (events, per_s) => start("flood", { events, per_s }, ["custom", "values"]);
const chat = () => start("chat", { messages: [{ role: "user", content: "word ".repeat(200) }] }, ["messages-tuple", "values"]);

const args = ["--no-sandbox", "--disable-gpu", "--js-flags=--expose-gc"];
const browsers = [];
async function open() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args });
  browsers.push(browser);
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  page.on("pageerror", (error) => console.error(error));
  page.on("console", (said) => said.type() === "error" && console.error(said.text()));
  await page.goto(`${url}/console/`);
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable");
  return { page, session };
}

const go = ({ page }, hash) => page.evaluate((place) => (location.hash = place), hash);

async function held({ session }) {
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  const { metrics } = await session.send("Performance.getMetrics");
  const of = (name) => metrics.find((one) => one.name === name).value;
  return `${(usedSize / 1e6).toFixed(1)} MB, ${of("Nodes")} nodes, ${of("JSEventListeners")} listeners`;
}

const staying = await open();
const walking = await open();
const long = await flood(minutes * 60 * rate, rate);
await go(staying, `#/run/${long.run_id}?tab=events`);
const begun = performance.now();
let runs = 0;
for (let lap = 1; performance.now() - begun < minutes * 60_000; lap++) {
  const until = performance.now() + LAP_S * 1000;
  for (let at = 0; performance.now() < until; at++) {
    const watched = at % 2 ? await chat() : await flood(1_000, 5 * rate);
    runs++;
    await go(walking, PAGES[at % PAGES.length]);
    await walking.page.waitForTimeout(2_000);
    await go(walking, at % 4 < 2 ? `#/run/${watched.run_id}` : `#/thread/${watched.thread_id}`);
    await api.runs.join(watched.thread_id, watched.run_id);
    await walking.page.waitForTimeout(1_000);
  }
  await go(walking, "#/runs");
  await walking.page.waitForTimeout(2_000);
  const shown = await staying.page.locator(".replay-at").first().textContent({ timeout: 5_000 }).catch(() => "");
  console.log(`${Math.round((performance.now() - begun) / 60_000)} min, ${runs} runs; one run ${shown}: ${await held(staying)}; pages: ${await held(walking)}`);
}
for (const browser of browsers) await browser.close();
