// The pure parts of the console's pages, without a browser.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

const CONSOLE = fileURLToPath(new URL("../../../console/", import.meta.url));

/** Import a module of the console. */
async function module(name) {
  const { build } = createRequire(`${CONSOLE}package.json`)("esbuild");
  const { outputFiles } = await build({ entryPoints: [`${CONSOLE}src/${name}`], bundle: true, format: "esm", write: false });
  return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].contents).toString("base64")}`);
}

const { begin, fold } = await module("lib/chat.ts");
const { differences, occurrences } = await module("lib/diff.ts");
const { lanesOf } = await module("pages/run/lanes.ts");

/** Fold events given as [name, data]. */
const told = (events, input = null) => events.reduce((was, [event, data], at) => fold(was, { number: at + 1, id: String(at + 1), event, data, size: 0 }), begin(input));
const chunk = (content, more = {}) => ["messages", [{ type: "AIMessageChunk", id: "a", content, ...more }, { langgraph_node: "model" }]];
const shape = ({ messages }) => messages.map(({ type, content, state }) => [type, content, state]);

test("chunks of a message are joined, and the last one makes it whole", () => {
  assert.deepEqual(shape(told([chunk("Hel"), chunk("lo")])), [["ai", "Hello", "partial"]]);
  const whole = told([chunk("Hel"), chunk("lo"), chunk("", { chunk_position: "last" })]);
  assert.deepEqual(shape(whole), [["ai", "Hello", "whole"]]);
  assert.equal(whole.messages[0].node, "model");
});

test("chunks of blocks are joined by their index", () => {
  const said = told([
    chunk([{ type: "thinking", thinking: "so", index: 0 }]),
    chunk([{ type: "thinking", thinking: "…", index: 0 }]),
    chunk([{ type: "text", text: "Yes", index: 1 }]),
  ]);
  assert.deepEqual(said.messages[0].content, [
    { type: "thinking", thinking: "so…", index: 0 },
    { type: "text", text: "Yes", index: 1 },
  ]);
});

test("arguments of a tool call grow with its chunks", () => {
  const said = told([
    chunk("", { tool_call_chunks: [{ index: 0, id: "c", name: "add", args: '{"a"' }] }),
    chunk("", { tool_call_chunks: [{ index: 0, id: null, name: null, args: ": 1}" }] }),
  ]);
  assert.deepEqual(said.messages[0].calls, [{ id: "c", name: "add", args: '{"a": 1}' }]);
});

test("what an attempt did not finish is cut off when the next one begins", () => {
  const said = told([["metadata", { attempt: 1 }], chunk("hal"), ["metadata", { attempt: 2 }]]);
  assert.deepEqual(shape(said), [["ai", "hal", "cut"]]);
  assert.equal(said.attempt, 2);
});

test("what was cut off stays before the message that came after it", () => {
  const answer = { type: "ai", content: "half", id: "b" };
  const began = [["metadata", { attempt: 1 }], chunk("hal"), ["metadata", { attempt: 2 }]];
  const said = told([...began, ["messages/complete", [answer]], ["values", { messages: [answer] }]]);
  assert.deepEqual(shape(said), [["ai", "hal", "cut"], ["ai", "half", "whole"]]);
});

test("the state says which messages there are, and which of them the thread had before", () => {
  const before = { type: "human", content: "before", id: "0" };
  const given = { type: "human", content: "now", id: "1" };
  const said = told([["values", { messages: [before, given] }], chunk("ans")], { messages: [{ role: "user", content: "now" }] });
  assert.deepEqual(shape(said), [["human", "before", "whole"], ["human", "now", "whole"], ["ai", "ans", "partial"]]);
  assert.equal(said.earlier, 1);
  const removed = fold(said, { number: 9, event: "values", data: { messages: [given, { type: "ai", content: "answer", id: "a" }] } });
  assert.deepEqual(shape(removed), [["human", "now", "whole"], ["ai", "answer", "whole"]]);
});

test("what a run was given is not repeated by an update", () => {
  const said = told([["updates", { ask: { messages: [{ type: "human", content: "hi" }] } }]], { messages: [{ role: "user", content: "hi" }] });
  assert.deepEqual(shape(said), [["human", "hi", "whole"]]);
});

test("a fold changes nothing that was folded before", () => {
  const early = told([chunk("a")]);
  fold(early, { number: 2, event: "messages", data: chunk("b")[1] });
  assert.deepEqual(shape(early), [["ai", "a", "partial"]]);
});

test("odd data is passed by", () => {
  for (const data of [undefined, null, 3, "text", [], {}, { messages: 3 }, { messages: [null, 3, {}] }]) {
    for (const event of ["messages", "messages/partial", "messages/metadata", "values", "updates", "error", "metadata", "custom"]) {
      told([[event, data]]);
    }
  }
});

test("differences name paths, and tell things with ids by them", () => {
  const before = { done: [0], messages: [{ id: "a", text: "x" }], gone: 1 };
  const after = { done: [0, 1], messages: [{ id: "b", text: "y" }, { id: "a", text: "z" }] };
  assert.deepEqual(
    differences(before, after, 10).map(({ path, kind }) => [path, kind]),
    [["done.1", "added"], ["messages.a.text", "changed"], ["messages.b", "added"], ["gone", "removed"]],
  );
  assert.equal(differences(before, after, 2).length, 2);
  assert.deepEqual(occurrences(after, "Y", 10), [{ path: "messages.b.text", value: "y" }]);
});

test("a fork has a line of its own, which joins where it began", () => {
  const history = [["d", "b"], ["c", "b"], ["b", "a"], ["a", null]].map(([checkpoint_id, parent_checkpoint_id]) => ({ checkpoint_id, parent_checkpoint_id }));
  assert.deepEqual(lanesOf(history).map(({ lane, joining }) => [lane, joining]), [[0, []], [1, []], [0, [0, 1]], [0, [0]]]);
});
