import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { KEYS, accessible, client, look, visit } from "./kit.mjs";

const open = client();
const say = (text) => ({ messages: [{ type: "human", content: text }] });

async function asking(graph, input, by = open) {
  const { thread_id } = await by.threads.create();
  await by.runs.wait(thread_id, graph, { input });
  return thread_id;
}

const state = async (threadId) => (await open.threads.getState(threadId)).values;
/** Wait until the answer that the page sends was taken, and its run is over. */
const ended = async (threadId) => {
  while ((await open.threads.get(threadId)).status !== "idle") await setTimeout(50);
};

test("with no question the page says so", async () => {
  await visit("inbox", {}, async (page) => {
    await page.getByText("No agent waits for a person.").waitFor();
    await accessible(page);
  });
});

test("a tool call is approved, edited, rejected or answered, as its middleware allows", async () => {
  const cases = [
    [async (card) => card.getByRole("button", { name: "Approve" }).click(), "Sent to ada: Lunch at noon?"],
    [
      async (card) => {
        await card.getByRole("button", { name: "Edit…" }).click();
        await card.getByLabel("text").fill("Lunch at one?");
        await card.getByRole("button", { name: "Approve as edited" }).click();
      },
      "Sent to ada: Lunch at one?",
    ],
    [
      async (card) => {
        await card.getByRole("button", { name: "Reject…" }).click();
        await card.getByLabel("Why").fill("Not today");
        await card.getByRole("button", { name: "Reject", exact: true }).click();
      },
      "Not today",
    ],
    [
      async (card) => {
        await card.getByRole("button", { name: "Respond…" }).click();
        await card.getByLabel("Response").fill("Ask her yourself");
        await card.getByRole("button", { name: "Send response" }).click();
      },
      "Ask her yourself",
    ],
  ];
  for (const [decide, said] of cases) {
    const threadId = await asking("mailer", say("ada"));
    await visit("inbox", {}, async (page) => {
      const card = page.locator("article").filter({ hasText: "send_email" });
      await card.getByText("ada").first().waitFor();
      await decide(card);
      await ended(threadId);
      await page.getByText("No agent waits for a person.").waitFor();
    });
    assert.match((await state(threadId)).messages.at(-1).content, new RegExp(said.replace("?", "\\?")));
  }
});

test("several tool calls are decided one by one, and sent together", async () => {
  const threadId = await asking("mailer", say("ada bob"));
  await visit("inbox", {}, async (page) => {
    const reviews = page.locator(".review");
    await reviews.nth(1).waitFor();
    await reviews.nth(0).getByRole("button", { name: "Approve" }).click();
    assert.ok(await page.getByRole("button", { name: "Send 2 decisions" }).isDisabled());
    await reviews.nth(1).getByRole("button", { name: "Reject…" }).click();
    await reviews.nth(1).getByRole("button", { name: "Reject", exact: true }).click();
    await page.getByRole("button", { name: "Send 2 decisions" }).click();
    await ended(threadId);
  });
  const texts = (await state(threadId)).messages.filter((one) => one.type === "tool").map((one) => one.content);
  assert.deepEqual([texts.filter((text) => text.startsWith("Sent to")), texts.length], [["Sent to ada: Lunch at noon?"], 2]);
});

test("a schema is a form, which says what is wrong beside the field", async () => {
  const threadId = await asking("booking", {});
  await visit("inbox", {}, async (page) => {
    await page.getByText("Which table do you want?").waitFor();
    await page.getByLabel("Guests").fill("21");
    await page.getByRole("button", { name: "Answer" }).click();
    await page.getByText("At most 20.").waitFor();
    await page.getByText("A value is needed.").waitFor();
    await accessible(page);
    await page.getByLabel("Guests").fill("4");
    await page.getByLabel("Course").selectOption("fish");
    await page.getByRole("button", { name: "Answer" }).click();
    await ended(threadId);
  });
  assert.deepEqual((await state(threadId)).answer, { guests: 4, window: true, course: "fish" });
});

test("a question that was answered meanwhile says so, and the first answer stays", async () => {
  const threadId = await asking("mailer", say("ada"));
  await visit("inbox", { allow: [/status of 409/] }, async (page) => {
    await page.getByRole("button", { name: "Approve" }).waitFor();
    await page.evaluate(() => Object.defineProperty(document, "hidden", { value: true, configurable: true }));
    await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await open.runs.wait(threadId, "mailer", { command: { resume: { decisions: [{ type: "reject", message: "First" }] } } });
    await page.getByRole("button", { name: "Approve" }).click();
    await page.getByText("was not taken.").waitFor();
    await page.evaluate(() => Object.defineProperty(document, "hidden", { value: false, configurable: true }));
    await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await page.getByRole("button", { name: "Approve" }).waitFor({ state: "detached" });
    await page.getByText("was not taken.").waitFor();
  });
  assert.match((await state(threadId)).messages.at(-1).content, /First/);
});

test("equal questions are answered alike", async () => {
  const threads = [await asking("mailer", say("eve")), await asking("mailer", say("eve")), await asking("mailer", say("zoe"))];
  await visit("inbox", {}, async (page) => {
    const card = page.locator("article").filter({ hasText: "eve" }).first();
    await card.getByLabel("Answer 1 equal question alike").check();
    await card.getByRole("button", { name: "Approve" }).click();
    await ended(threads[0]);
    await ended(threads[1]);
    await page.getByText("1 open question waits for a person").waitFor();
  });
  await open.runs.wait(threads[2], "mailer", { command: { resume: { decisions: [{ type: "approve" }] } } });
});

test("owners see their questions only; who may not see payload sees that there is one", async () => {
  const by = client(KEYS.owner);
  await asking("mailer", say("<img src=x onerror=alert(1)>"), by);
  await visit("inbox", { key: KEYS.owner }, async (page) => {
    await page.getByText("onerror=alert(1)>").first().waitFor();
    assert.equal(await page.locator("main img").count(), 0);
  });
  await visit("inbox", { key: KEYS.other }, (page) => page.getByText("No agent waits for a person.").waitFor());
  await visit("inbox", { key: KEYS.reader }, async (page) => {
    await page.getByText("1 open question waits for a person").waitFor();
    assert.equal(await page.getByText("onerror").count(), 0);
    assert.equal(await page.getByRole("button", { name: "Approve" }).count(), 0);
  });
});

test("an operator answers for the owner, whose page says who was faster", async () => {
  const threadId = await asking("booking", {}, client(KEYS.other));
  const fill = async (card) => {
    await card.getByLabel("Guests").fill("4");
    await card.getByLabel("Course").selectOption("fish");
  };
  await visit("inbox", { key: KEYS.other, allow: [/status of 409/] }, async (owner) => {
    await fill(owner.locator("article"));
    await owner.evaluate(() => Object.defineProperty(document, "hidden", { value: true, configurable: true }));
    await owner.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
    await visit(`thread/${threadId}`, { key: KEYS.admin }, async (page) => {
      const questions = page.getByRole("region", { name: "Questions" });
      await fill(questions);
      await questions.getByRole("button", { name: "Answer" }).click();
      await page.getByText("The last run ended with success").waitFor();
      assert.equal(await questions.count(), 0);
    });
    await owner.getByRole("button", { name: "Answer" }).click();
    await owner.getByText(/was not taken. ada answered it/).waitFor();
  });
  await visit("audit?action=answer", { key: KEYS.admin }, (page) => page.getByRole("row").filter({ hasText: "ada" }).first().waitFor());
});

test("an operator's inbox is read again and again without payload", async () => {
  const by = client(KEYS.other);
  const threads = [await asking("mailer", say("zed"), by)];
  await visit("inbox", { key: KEYS.admin }, async (page) => {
    const asked = [];
    page.on("request", (request) => {
      if (request.url().endsWith("/interrupts/search")) asked.push(request.headers()["runlane-payload"]);
    });
    await page.locator("article").filter({ hasText: "zed" }).getByRole("button", { name: "Approve" }).waitFor();
    asked.length = 0;
    while (asked.length < 2) await setTimeout(100);
    assert.deepEqual(asked, ["omit", "omit"]);
    threads.push(await asking("mailer", say("yan"), by));
    await page.locator("article").filter({ hasText: "yan" }).getByRole("button", { name: "Approve" }).click();
    await page.locator("article").filter({ hasText: "yan" }).waitFor({ state: "detached" });
    await page.locator("article").filter({ hasText: "zed" }).waitFor();
  });
});

test("the inbox fits every screen", async () => {
  await asking("mailer", say("ada bob"));
  await asking("booking", {});
  await asking("reviewed", say("a text that nobody has read yet"));
  await look("inbox", "inbox", {}, "article >> nth=2");
});

/** Questions that no form can show: with no end, of many fields, with schemas that are none, and no calls at all. */
const level = (at) => ({ type: "object", required: ["a", "b"], properties: { a: { $ref: `#/$defs/d${at}` }, b: { $ref: `#/$defs/d${at}` } } });
const ODD = {
  endless: { response_schema: { type: "object", required: ["next"], properties: { next: { $ref: "#/$defs/node" } }, $defs: { node: { type: "object", required: ["next"], properties: { next: { $ref: "#/$defs/node" } } } } } },
  wide: { response_schema: { $ref: "#/$defs/d0", $defs: { ...Object.fromEntries(Array.from({ length: 40 }, (_, at) => [`d${at}`, level(at + 1)])), d40: { type: "string" } } } },
  choice: { response_schema: { $ref: "#/$defs/c", $defs: { c: { anyOf: [{ $ref: "#/$defs/c" }, { type: "null" }] } } } },
  whole: { response_schema: { $ref: "#/$defs/c", $defs: { c: { allOf: [{ $ref: "#/$defs/c" }] } } } },
  none: { response_schema: { type: "object", properties: { a: null, b: true, c: { $ref: 5 }, d: { $ref: "#/$defs/constructor" } } } },
  words: { response_schema: { type: "object", properties: { a: { enum: 5 } }, required: 5 } },
  calls: { action_requests: [null], review_configs: 5 },
};

test("a question that no form can show is answered in JSON, and spoils no other", { timeout: 60_000 }, async () => {
  const threads = {};
  for (const [name, value] of Object.entries(ODD)) threads[name] = await asking("anything", { value: { question: `odd ${name}`, ...value } });
  await visit("inbox", {}, async (page) => {
    const cards = page.locator("article").filter({ hasText: "anything" });
    await cards.nth(Object.keys(ODD).length - 1).waitFor();
    for (const name of Object.keys(ODD)) {
      const card = cards.filter({ hasText: `odd ${name}` });
      const json = card.getByRole("button", { name: "As JSON" });
      if (await json.count()) await json.click();
      for (const field of await card.locator("textarea").all()) await field.fill('"fine"');
      await card.getByRole("button", { name: "Answer", exact: true }).click();
      await ended(threads[name]);
    }
  });
  assert.equal((await state(threads.endless)).answer, "fine");
});

test("what would turn or hide the text around it is shown as its code", async () => {
  await asking("anything", { value: { file: "\u202egpj.exe", note: "n".repeat(3_000), lines: "line\n".repeat(99) } });
  await visit("inbox", {}, async (page) => {
    await page.getByText("\\u202egpj.exe").waitFor();
    await page.getByRole("button", { name: "all 3000 characters" }).waitFor();
    await page.getByRole("button", { name: "all 495 characters" }).waitFor();
  });
});
