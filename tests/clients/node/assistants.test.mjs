import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { NOWHERE, connect } from "./kit.mjs";

const client = connect();

test("every graph has an assistant of the system, found, counted and paged", async () => {
  const query = { metadata: { created_by: "system" } };
  const all = await client.assistants.search({ ...query, limit: 100 });
  assert.ok(all.some((one) => one.graph_id === "chat"));
  assert.equal(await client.assistants.count(query), all.length);
  const page = await client.assistants.search({ ...query, limit: 2, includePagination: true });
  assert.equal(page.assistants.length, 2);
  assert.equal(page.next, "2");
  const [one] = await client.assistants.search({ ...query, graphId: "chat", select: ["assistant_id"] });
  assert.deepEqual(Object.keys(one), ["assistant_id"]);
});

test("a graph is drawn by name, its schemas and subgraphs are described", async () => {
  const graph = await client.assistants.getGraph("nested", { xray: true });
  assert.ok(graph.nodes.some((node) => node.id.startsWith("child:")));
  assert.deepEqual((await client.assistants.getGraph("chat")).nodes.map((node) => node.id), ["__start__", "answer", "__end__"]);
  const [nested] = await client.assistants.search({ graphId: "nested", metadata: { created_by: "system" } });
  const schemas = await client.assistants.getSchemas(nested.assistant_id);
  assert.ok(schemas.input_schema.properties.messages);
  assert.deepEqual(Object.keys(await client.assistants.getSubgraphs(nested.assistant_id)), ["child"]);
  const named = await client.assistants.getSubgraphs(nested.assistant_id, { namespace: "child", recurse: true });
  assert.deepEqual(Object.keys(named), ["child"]);
});

test("an assistant is made once, changed in versions, taken back and deleted", async () => {
  const assistantId = randomUUID();
  const made = await client.assistants.create({ assistantId, graphId: "settings", name: "mine", context: { mood: "a" } });
  assert.deepEqual([made.assistant_id, made.version, made.name], [assistantId, 1, "mine"]);
  await assert.rejects(client.assistants.create({ assistantId, graphId: "settings" }), { status: 409 });
  const same = await client.assistants.create({ assistantId, graphId: "settings", ifExists: "do_nothing" });
  assert.deepEqual(same, made);
  const changed = await client.assistants.update(assistantId, { context: { mood: "b" }, metadata: { k: 1 } });
  assert.deepEqual([changed.version, changed.context.mood, changed.metadata.k], [2, "b", 1]);
  const versions = await client.assistants.getVersions(assistantId, { limit: 10 });
  assert.deepEqual(versions.map((one) => one.version), [2, 1]);
  const back = await client.assistants.setLatest(assistantId, 1);
  assert.deepEqual([back.version, back.context.mood], [1, "a"]);
  assert.equal((await client.runs.wait(null, assistantId, { input: {} })).mood, "a");
  assert.equal((await client.assistants.get(assistantId)).version, 1);
  await client.assistants.delete(assistantId);
  await assert.rejects(client.assistants.get(assistantId), { status: 404 });
});

test("what does not exist is 404, for an assistant and for its graph", async () => {
  await assert.rejects(client.assistants.get(NOWHERE), { status: 404 });
  await assert.rejects(client.assistants.create({ graphId: "nothing" }), { status: 404 });
});
