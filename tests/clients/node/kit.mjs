// What the tests of the JavaScript client share.
import { once } from "node:events";
import net from "node:net";
import { Client } from "@langchain/langgraph-sdk";

export const URL_OF_SERVER = process.env.RUNLANE_URL;
export const NOWHERE = "00000000-0000-4000-8000-000000000000";

export const connect = (apiUrl = URL_OF_SERVER, more = {}) =>
  new Client({ apiUrl, apiKey: null, callerOptions: { maxRetries: 0 }, ...more });

export const human = (text) => ({ messages: [{ type: "human", content: text }] });

/** Let every run that waits for the word `@name` go on. */
export const open = (client, name) => client.runs.wait(null, "gate", { input: { name } });

export const fresh = async (client) => (await client.threads.create()).thread_id;

/** A run that waits at a gate that nobody opens. */
export const stuck = (client, threadId, more = {}) =>
  client.runs.create(threadId, "chat", { input: human("hold @never on"), ...more });

/** The run, once it executes. */
export async function begun(client, run) {
  for await (const part of client.runs.joinStream(run.thread_id, run.run_id, { lastEventId: "-1" }))
    if (part.event !== "metadata") return run;
}

/** Read a stream to its end. */
export async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

/** Read *stream* until a part satisfies *test*; leaves it open. */
export async function until(iterator, test, seen = []) {
  for (;;) {
    const { value, done } = await iterator.next();
    if (done) throw new Error(`never came; seen: ${JSON.stringify(seen)}`);
    seen.push(value);
    if (test(value)) return seen;
  }
}

/** The text that the token events of *parts* make. */
export const spoken = (parts) =>
  parts
    .filter((part) => part.event === "messages" && part.data[0].type === "AIMessageChunk")
    .map((part) => part.data[0].content)
    .join("");

/** A TCP proxy to the server whose open connections can be cut. */
export async function proxy() {
  const target = new URL(URL_OF_SERVER);
  const sockets = new Set();
  let served = 0;
  const server = net.createServer((down) => {
    served += 1;
    const up = net.connect(Number(target.port), target.hostname);
    for (const [from, to] of [[down, up], [up, down]]) {
      sockets.add(from);
      from.on("close", () => (sockets.delete(from), to.destroy()));
      from.on("error", () => to.destroy());
      from.pipe(to);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut: () => sockets.forEach((socket) => socket.resetAndDestroy()),
    connections: () => served,
    close: () => (server.close(), sockets.forEach((socket) => socket.destroy())),
  };
}
