// An office at work. With PICTURES set, its pages become the pictures of the documentation.
import { before, test } from "node:test";
import { accessible, client, visit } from "./kit.mjs";

const PICTURES = process.env.PICTURES;
const open = client();
const human = (text) => ({ messages: [{ type: "human", content: text }] });
const runs = {};

async function done(graph, input, title) {
  const { thread_id } = await open.threads.create({ metadata: { title } });
  await open.runs.wait(thread_id, graph, { input, raiseError: false });
  const [run] = await open.runs.list(thread_id);
  return run;
}

before(async () => {
  const topics = ["Trip to Oslo", "Invoice 4711", "Offer for Umbrella", "Minutes of Monday", "Lunch with Ada", "Release notes"];
  for (const title of topics) await done("chat", human(`Write a line about: ${title}`), title);
  for (let at = 0; at < 3; at++) await done("failing", {}, "Nightly report");
  await done("tools", human("add"), "Sum of a day");
  await done("mailer", human("ada bob"), "Invite the team");
  await done("booking", {}, "Table for Friday");
  const { thread_id } = await open.threads.create({ metadata: { title: "Plan the offsite" } });
  runs.busy = await open.runs.create(thread_id, "chat", { 
    input: human("Plan three days in the mountains @offsite with hikes"),
    streamMode: ["values", "messages-tuple"],
  });
  await open.runs.create(thread_id, "chat", { input: human("And add a museum"), multitaskStrategy: "enqueue" });
});

const pages = {
  overview: () => ["overview", "main h1"],
  runs: () => ["runs", "tbody tr >> nth=8"],
  inbox: () => ["inbox", "article >> nth=1"],
  run: () => [`run/${runs.busy.run_id}`, "text=Plan three days"],
};

for (const [name, where] of Object.entries(pages)) {
  test(`the page ${name} of an office at work`, async () => {
    const [place, ready] = where();
    for (const dark of [false, true]) {
      await visit(place, { dark, trace: dark ? undefined : name }, async (page) => {
        await page.locator(ready).first().waitFor();
        await page.waitForFunction(() => !document.querySelector("[aria-busy=true]"));
        await accessible(page);
        if (PICTURES && !dark) await page.screenshot({ path: `${PICTURES}/console-${name}.png`, clip: { x: 0, y: 0, width: 1440, height: 860 } });
      });
    }
  });
}
