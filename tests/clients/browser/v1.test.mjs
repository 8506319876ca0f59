// A page with `useStream` of @langchain/langgraph-sdk/react.
import assert from "node:assert/strict";
import { test } from "node:test";
import { open, proxy } from "../node/kit.mjs";
import { client, quietly, visit } from "./kit.mjs";

test("what is sent is answered word by word", async () => {
  await quietly("v1", {}, async (chat) => {
    await chat.send("hello @v1-a world");
    await chat.said("echo: hello");
    await chat.status("working");
    await open(client, "v1-a");
    await chat.said("echo: hello @v1-a world");
    await chat.status("ready");
    assert.deepEqual(await chat.texts(), ["hello @v1-a world", "echo: hello @v1-a world"]);
    assert.equal((await client.threads.search({ ids: [chat.threadId] }))[0].metadata.graph_id, "chat");
  });
});

test("a page that is reloaded in mid-stream shows the whole answer", async () => {
  await quietly("v1", {}, async (chat) => {
    await chat.send("again @v1-b done");
    await chat.said("echo: again");
    await chat.page.reload();
    await chat.said("echo: again");
    const joined = chat.requests.find((one) => one.headers()["last-event-id"] === "-1");
    assert.match(joined.url(), /\/runs\/.*\/stream/);
    await open(client, "v1-b");
    await chat.said("echo: again @v1-b done");
    await chat.status("ready");
    assert.equal((await chat.runs()).length, 1);
  });
});

test("a connection that breaks in mid-stream is made again, and nothing is lost", async () => {
  const between = await proxy();
  try {
    await visit("v1", { api: between.url }, async (chat) => {
      await chat.send("torn @v1-c mended");
      await chat.said("echo: torn");
      between.cut();
      await chat.page.waitForRequest((request) => /-\d+$/.test(request.headers()["last-event-id"] ?? ""));
      await open(client, "v1-c");
      await chat.said("echo: torn @v1-c mended");
      await chat.status("ready");
    });
  } finally {
    between.close();
  }
});

test("stop ends the run on the server, and the thread goes on", async () => {
  await quietly("v1", {}, async (chat) => {
    await chat.send("hold @v1-never on");
    await chat.said("echo: hold");
    const cancelled = chat.page.waitForResponse((response) => response.url().includes("/cancel"));
    await chat.click("Stop");
    assert.equal((await cancelled).status(), 202);
    await chat.status("ready");
    const [run] = await chat.runs();
    await client.runs.join(chat.threadId, run.run_id);
    assert.equal((await client.runs.get(chat.threadId, run.run_id)).status, "interrupted");
    await chat.send("next");
    await chat.said("echo: next");
  });
});

test("a message is edited and an answer is made again, each in a branch of its own", async () => {
  await quietly("v1", {}, async (chat) => {
    await chat.send("one");
    await chat.said("echo: one");
    await chat.status("ready");
    await chat.click("Edit");
    await chat.said("echo: one edited");
    await chat.status("ready");
    assert.deepEqual(await chat.texts(), ["one edited", "echo: one edited"]);
    await chat.click("Branch 1");
    await chat.said("echo: one");
    await chat.click("Branch 2");
    await chat.said("echo: one edited");
    await chat.click("Regenerate");
    await chat.status("ready");
    assert.deepEqual(await chat.texts(), ["one edited", "echo: one edited"]);
    const { values } = await client.threads.getState(chat.threadId);
    assert.deepEqual(values.messages.map((one) => one.content), ["one edited", "echo: one edited"]);
    assert.equal((await chat.runs()).length, 3);
  });
});

for (const [decision, answer] of [["Approve", "echo: mail it"], ["Reject", "rejected: no"]]) {
  test(`an interrupt survives a reload and is answered: ${decision}`, async () => {
    await quietly("v1", { assistant: "reviewed" }, async (chat) => {
      await chat.send("mail it");
      await chat.page.getByText("send? mail it").waitFor();
      await chat.status("ready");
      await chat.page.reload();
      await chat.page.getByText("send? mail it").waitFor();
      await chat.click(decision);
      await chat.said(answer);
      await chat.page.getByLabel("interrupt").waitFor({ state: "detached" });
      await chat.status("ready");
      assert.equal((await client.threads.get(chat.threadId)).status, "idle");
    });
  });
}
