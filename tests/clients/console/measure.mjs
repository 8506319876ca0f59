// Measures the page of a run: how long one with very many events takes to open and to scrub, and the longest frame while
// events come fast. Usage: RUNLANE_URL=… CHROMIUM=… node tests/clients/console/measure.mjs [events] [events a second] [seconds]
import { Client } from "@langchain/langgraph-sdk";
import { chromium } from "playwright-core";

const [events = 100_000, rate = 5_000, seconds = 20] = process.argv.slice(2).map(Number);
const url = process.env.RUNLANE_URL;
const api = new Client({ apiUrl: url, apiKey: null });

async function start(assistant, input, streamMode) {
  const { thread_id } = await api.threads.create();
  return api.runs.create(thread_id, assistant, { input, streamMode });
}

const flood = (input) => start("flood", input, ["custom", "values"]);
/** One message of many tokens. */
const talk = (tokens) => start("chat", { messages: [{ role: "user", content: "word ".repeat(tokens).trim() }] }, ["messages-tuple", "values"]);

/**
 * Give what frames take while *act* is done, in milliseconds: the time between two of them, and the tasks of the page's main
 * thread, in processor time, which other load on the machine does not change.
 */
async function frames(page, act) {
  const session = await browser.newBrowserCDPSession();
  const trace = [];
  session.on("Tracing.dataCollected", ({ value }) => trace.push(...value));
  await session.send("Tracing.start", { traceConfig: { includedCategories: ["toplevel", "__metadata"] }, transferMode: "ReportEvents" });
  await page.evaluate(() => {
    const found = { between: [], before: performance.now() };
    globalThis.measured = found;
    const step = (now) => {
      found.between.push(now - found.before);
      found.before = now;
      found.frame = requestAnimationFrame(step);
    };
    found.frame = requestAnimationFrame(step);
  });
  await act();
  const between = await page.evaluate(() => {
    cancelAnimationFrame(globalThis.measured.frame);
    return globalThis.measured.between.slice(1);
  });
  const done = new Promise((resolve) => session.once("Tracing.tracingComplete", resolve));
  await session.send("Tracing.end");
  await done;
  await session.detach();
  const main = trace.filter((one) => one.name === "thread_name" && one.args.name === "CrRendererMain").map((one) => `${one.pid} ${one.tid}`);
  const tasks = trace.filter((one) => one.ph === "X" && /RunTask$/.test(one.name) && main.includes(`${one.pid} ${one.tid}`)).map((one) => (one.tdur ?? 0) / 1000);
  return { ...spread("frame", between), ...spread("task", tasks), over_50_ms: tasks.filter((one) => one > 50).length };
}

function spread(name, values) {
  const sorted = values.sort((one, other) => one - other);
  const at = (part) => Math.round(sorted[Math.floor((sorted.length - 1) * part)] * 10) / 10;
  const all = Math.round(sorted.reduce((sum, one) => sum + one, 0));
  return { [`${name}s`]: sorted.length, [`${name}s_ms`]: all, [`${name}_median`]: at(0.5), [`${name}_p99`]: at(0.99), [`${name}_longest`]: at(1) };
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox", "--disable-gpu", "--js-flags=--expose-gc"] });
const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
page.on("pageerror", (error) => console.error(error));

const large = await flood({ events });
await api.runs.join(large.thread_id, large.run_id);
await page.goto(`${url}/console/`);
await page.getByRole("heading", { name: "Overview" }).waitFor();
const total = new RegExp(`/ ${(events + 4).toLocaleString("en")}$`);
const begun = performance.now();
await page.evaluate((id) => (location.hash = `#/run/${id}?tab=events`), large.run_id);
await page.locator(".event").first().waitFor();
const first = performance.now();
await page.getByText(total).waitFor();
console.log(`${events} events: the first are shown after ${Math.round(first - begun)} ms, all after ${Math.round(performance.now() - begun)} ms`);

const spoken = await talk(events / 4);
await api.runs.join(spoken.thread_id, spoken.run_id);
for (const [tab, run] of Object.entries({ Events: large, State: large, Conversation: spoken })) {
  await page.evaluate((place) => (location.hash = place), `#/run/${run.run_id}?tab=${tab.toLowerCase()}`);
  await page.waitForFunction((count) => Number(document.querySelector(".replay input")?.max) > count, events / 4);
  await page.waitForTimeout(2_000);
  const scrubbed = await frames(page, () =>
    page.evaluate(async () => {
      const bar = document.querySelector(".replay input");
      for (let at = 0; at < 240; at++) {
        bar.value = String(Math.floor((Number(bar.max) * ((at * 37) % 240)) / 240));
        bar.dispatchEvent(new InputEvent("input", { bubbles: true }));
        await new Promise(requestAnimationFrame);
      }
    }),
  );
  console.log(`scrub to and fro, ${tab}:`, scrubbed);
}

const memory = async () => {
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  return `${Math.round(usedSize / 1e6)} MB`;
};
console.log("heap with it:", await memory());
const live = await flood({ events: rate * seconds, per_s: rate });
await page.evaluate((id) => (location.hash = `#/run/${id}?tab=events`), live.run_id);
await page.locator(".event").first().waitFor();
console.log("heap at the beginning of the stream:", await memory());
const watched = await frames(page, () => page.getByText("It completed.").waitFor({ timeout: (seconds + 60) * 1000 }));
console.log(`${rate} events/s for ${seconds} s:`, watched);
const listened = await talk(events / 4);
await page.evaluate((id) => (location.hash = `#/run/${id}`), listened.run_id);
console.log(`${events / 4} tokens of one message:`, await frames(page, () => page.getByText("It completed.").waitFor({ timeout: 120_000 })));
console.log("heap at its end:", await memory());
await browser.close();
