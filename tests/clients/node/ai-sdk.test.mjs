// The AI SDK's chat, which `useChat` shows, over its transport for LangGraph servers.
import assert from "node:assert/strict";
import { test } from "node:test";
import { LangSmithDeploymentTransport } from "@ai-sdk/langchain";
import { Chat } from "@ai-sdk/react";
import { URL_OF_SERVER, connect } from "./kit.mjs";

const client = connect();
const begin = (graphId) => new Chat({ transport: new LangSmithDeploymentTransport({ url: URL_OF_SERVER, graphId }) });
const texts = (chat) => chat.messages.map((one) => one.parts.filter((part) => part.type === "text").map((part) => part.text).join(""));

/** Wait until the last message has *text*. */
async function said(chat, text) {
  await new Promise((done) => {
    const look = () => texts(chat).at(-1)?.includes(text) && done();
    chat["~registerMessagesCallback"](look);
    look();
  });
}

test("messages are streamed, and the next one knows those before", async () => {
  const chat = begin("chat");
  await chat.sendMessage({ text: "hello" });
  assert.deepEqual(texts(chat), ["hello", "echo: hello"]);
  await chat.sendMessage({ text: "again" });
  assert.deepEqual(texts(chat), ["hello", "echo: hello", "again", "echo: again"]);
  assert.equal(chat.status, "ready");
});

test("a reply is shown as it is written; a cancel ends it", async () => {
  const chat = begin("chat");
  const sending = chat.sendMessage({ text: "hold @ai-sdk-never on" });
  await said(chat, "echo: hold");
  assert.equal(chat.status, "streaming");
  const [run] = await running();
  await client.runs.cancel(run.thread_id, run.run_id, true);
  await sending;
  assert.equal(texts(chat).at(-1), "echo: hold");
});

test("tool calls and their results are parts of the message", async () => {
  const chat = begin("tools");
  await chat.sendMessage({ text: "add" });
  const parts = chat.messages.at(-1).parts.map((part) => part.type);
  assert.ok(parts.some((type) => type.startsWith("tool-") || type === "dynamic-tool"), parts.join(" "));
});

async function running() {
  const answer = await fetch(`${URL_OF_SERVER}/runs/search`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ graph_id: "chat", status: "running" }),
  });
  return answer.json();
}
