// The pages of the console, and what makes none of them empty.
import { client } from "./kit.mjs";

const WORK = ["overview", "inbox", "runs", "threads", "playground"];
const THINGS = ["assistants", "crons", "webhooks", "store"];
export const SERVER = ["workers", "limits", "audit", "doctor", "settings"];
export const EVERYONE = [...WORK, ...THINGS, "usage"];

const human = (text) => ({ messages: [{ type: "human", content: text }] });
export const hostile = [
  "<script>document.title = 'taken'</script>",
  "<img src=x onerror=\"document.title='taken'\">",
  "javascript:document.title='taken'",
  "\u202eright to left\u202c \u05e9\u05dc\u05d5\u05dd",
  "\u001b[31mred\u001b[0m \u0007 \u0008",
  "x".repeat(20_000),
].join("\n");

/** Two runs of each end, so that no page is empty. */
export async function history(by = client()) {
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
export const read = (page) => page.waitForFunction(() => document.querySelector("main h1") && !document.querySelector("[aria-busy=true]"));
