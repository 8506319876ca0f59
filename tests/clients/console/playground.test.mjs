import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, OPEN, accessible, client, look, visit } from "./kit.mjs";

const open = client();
const assistants = await open.assistants.search({ limit: 100 });
const idOf = (name) => assistants.find((one) => one.name === name).assistant_id;
const at = (name, query = "") => `playground/${idOf(name)}${query}`;
const runIn = (page) => page.getByRole("region", { name: "Run" });

test("a message is answered while one watches, and the next one goes on on the same thread", async () => {
  await visit(at("chat"), {}, async (page) => {
    await page.getByRole("textbox", { name: "Message" }).fill("hello @first there");
    await page.keyboard.press("Control+Enter");
    const log = page.getByRole("log");
    await log.getByText("echo: hello").waitFor();
    await page.locator(".graph-node.active", { hasText: "answer" }).waitFor();
    await open.runs.wait(null, "gate", { input: { name: "first" } });
    await log.getByText("echo: hello @first there").waitFor();
    await runIn(page).locator(".status-success").waitFor();
    await page.locator(".graph-node.done", { hasText: "answer" }).waitFor();
    const thread = new URLSearchParams(page.url().split("?")[1]).get("thread");
    await page.getByRole("textbox", { name: "Message" }).fill("again");
    await page.getByRole("button", { name: "Send" }).click();
    await log.getByText("echo: again").waitFor();
    assert.equal((await open.runs.list(thread)).length, 2);
    await accessible(page);
  });
});

test("a run is cancelled, and the page says how it ended", async () => {
  await visit(at("chat"), {}, async (page) => {
    await page.getByRole("textbox", { name: "Message" }).fill("hold @nobody on");
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByRole("log").getByText("echo: hold").waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
    await runIn(page).locator(".status-interrupted").waitFor();
  });
});

test("a picture is sent as the model takes it", async () => {
  const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
  await visit(at("chat"), {}, async (page) => {
    await page.getByLabel("Pictures").setInputFiles({ name: "dot.png", mimeType: "image/png", buffer: Buffer.from(pixel, "base64") });
    await page.getByText("Remove dot.png").waitFor();
    await page.getByRole("textbox", { name: "Message" }).fill("what is this?");
    await page.getByRole("button", { name: "Send" }).click();
    await runIn(page).locator(".status-success").waitFor();
    const thread = new URLSearchParams(page.url().split("?")[1]).get("thread");
    const { values } = await open.threads.getState(thread);
    assert.equal(values.messages[0].content[1].image_url.url, `data:image/png;base64,${pixel}`);
  });
});

test("an input without messages is a form, and a question is answered in its place", async () => {
  await visit(at("booking"), {}, async (page) => {
    await page.getByRole("button", { name: "Run", exact: true }).click();
    const question = page.getByRole("region", { name: "Question" });
    await question.getByText("Which table do you want?").waitFor();
    await question.getByLabel("Guests").fill("2");
    await question.getByLabel("Course").selectOption("meat");
    await page.getByRole("button", { name: "Answer" }).click();
    await runIn(page).locator(".status-success").waitFor();
    const thread = new URLSearchParams(page.url().split("?")[1]).get("thread");
    assert.equal((await open.threads.getState(thread)).values.answer.guests, 2);
  });
});

test("options are those of the run", async () => {
  await visit(at("chat"), {}, async (page) => {
    await page.getByText("Options").click();
    await page.getByLabel("Pause before nodes").fill("answer");
    await page.getByLabel("Durability").selectOption("sync");
    await page.getByRole("textbox", { name: "Message" }).fill("wait");
    await page.getByRole("button", { name: "Send" }).click();
    await runIn(page).locator(".status-interrupted, .status-success").waitFor();
    const thread = new URLSearchParams(page.url().split("?")[1]).get("thread");
    assert.deepEqual((await open.threads.getState(thread)).next, ["answer"]);
  });
});

test("subgraphs open, and their nodes are at work by their own names", async () => {
  await visit(at("nested"), {}, async (page) => {
    await page.getByLabel("Open subgraphs").check();
    await page.locator(".graph-node", { hasText: "child:answer" }).waitFor();
    await page.getByRole("textbox", { name: "Message" }).fill("go");
    await page.getByRole("button", { name: "Send" }).click();
    await page.locator(".graph-node.done", { hasText: "child:answer" }).waitFor();
  });
});

test("a failed run shows its error", async () => {
  await visit(at("failing"), {}, async (page) => {
    await page.getByRole("button", { name: "Run", exact: true }).click();
    await runIn(page).locator(".status-error").waitFor();
    await page.locator(".graph-node.failed").waitFor();
  });
});

test("an operator's key starts nothing, and an assistant that is not there is named", async () => {
  await visit("playground", { key: KEYS.admin }, (page) => page.getByText("An operator's key starts no runs.").waitFor());
  await visit("playground/none", { url: OPEN }, (page) => page.getByText("There is no assistant none").waitFor());
});

test("the playground fits every screen", async () => {
  const thread = await open.threads.create();
  await open.runs.wait(thread.thread_id, "mailer", { input: { messages: [{ type: "human", content: "ada" }] } });
  await look("playground", at("mailer"), {}, ".graph-node >> nth=3");
});
