// A page with `useStream` of @langchain/react, which speaks the streaming protocol.
import assert from "node:assert/strict";
import { test } from "node:test";
import { open, proxy } from "../node/kit.mjs";
import { client, quietly, visit } from "./kit.mjs";

for (const transport of ["sse", "websocket"]) {
  const options = { transport };
  const gate = (name) => `v2-${transport}-${name}`;

  test(`${transport}: what is sent is answered word by word, turn after turn`, async () => {
    await quietly("v2", options, async (chat) => {
      await chat.send(`hello @${gate("a")} world`);
      await chat.said("echo: hello");
      await chat.status("working");
      await open(client, gate("a"));
      await chat.said(`echo: hello @${gate("a")} world`);
      await chat.status("ready");
      await chat.send("next");
      await chat.said("echo: next");
      await chat.status("ready");
      assert.deepEqual((await chat.texts()).filter((text) => text.startsWith("echo")).length, 2);
    });
  });

  test(`${transport}: a page that is reloaded in mid-stream shows the whole answer`, async () => {
    await quietly("v2", options, async (chat) => {
      await chat.send(`again @${gate("b")} done`);
      await chat.said("echo: again");
      await chat.page.reload();
      await chat.said("echo: again");
      await open(client, gate("b"));
      await chat.said(`echo: again @${gate("b")} done`);
      await chat.status("ready");
      assert.equal((await chat.runs()).length, 1);
    });
  });

  test(`${transport}: a connection that breaks in mid-stream is made again, and nothing is lost`, async () => {
    const between = await proxy();
    try {
      await visit("v2", { ...options, api: between.url }, async (chat) => {
        await chat.send(`torn @${gate("c")} mended`);
        await chat.said("echo: torn");
        const before = between.connections();
        between.cut();
        while (between.connections() === before) await new Promise(setImmediate);
        await open(client, gate("c"));
        await chat.said(`echo: torn @${gate("c")} mended`);
        await chat.status("ready");
      });
    } finally {
      between.close();
    }
  });

  test(`${transport}: stop ends the run on the server, and the thread goes on`, async () => {
    await quietly("v2", options, async (chat) => {
      await chat.send(`hold @never on`);
      await chat.said("echo: hold");
      const cancelled = chat.page.waitForResponse((response) => response.url().includes("/cancel"));
      await chat.click("Stop");
      assert.ok((await cancelled).ok());
      const [run] = await chat.runs();
      await client.runs.join(chat.threadId, run.run_id);
      assert.equal((await client.runs.get(chat.threadId, run.run_id)).status, "interrupted");
      await chat.status("ready");
      await chat.send("next");
      await chat.said("echo: next");
    });
  });

  test(`${transport}: a message is edited and an answer is made again, from a checkpoint`, async () => {
    await quietly("v2", options, async (chat) => {
      await chat.send("one");
      await chat.said("echo: one");
      await chat.status("ready");
      await chat.click("Edit");
      await chat.said("echo: one edited");
      await chat.status("ready");
      assert.deepEqual(await chat.texts(), ["one edited", "echo: one edited"]);
      await chat.click("Regenerate");
      let runs = [];
      while (runs.length < 3) runs = await chat.runs();
      await client.runs.join(chat.threadId, runs[0].run_id);
      await chat.status("ready");
      assert.deepEqual(await chat.texts(), ["one edited", "echo: one edited"]);
      const { values } = await client.threads.getState(chat.threadId);
      assert.equal(values.messages.length, 2);
    });
  });

  for (const [decision, answer] of [["Approve", "echo: mail it"], ["Reject", "rejected: no"]]) {
    test(`${transport}: an interrupt survives a reload and is answered: ${decision}`, async () => {
      await quietly("v2", { ...options, assistant: "reviewed" }, async (chat) => {
        await chat.send("mail it");
        await chat.page.getByText("send? mail it").waitFor();
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
}
