import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { connect } from "./kit.mjs";

const client = connect();

test("an item is put, read, found, listed and deleted", async () => {
  const root = `js-${randomUUID()}`;
  await client.store.putItem([root, "a"], "one", { kind: "x", n: 1 });
  await client.store.putItem([root, "b"], "two", { kind: "y", n: 2 }, { index: false, ttl: 60 });
  const item = await client.store.getItem([root, "a"], "one");
  assert.deepEqual([item.namespace, item.key, item.value], [[root, "a"], "one", { kind: "x", n: 1 }]);
  assert.ok(item.createdAt && item.updatedAt);
  const found = await client.store.searchItems([root], { filter: { n: { $gte: 2 } } });
  assert.deepEqual(found.items.map((one) => one.key), ["two"]);
  assert.equal((await client.store.searchItems([root], { limit: 1, offset: 1 })).items.length, 1);
  const { namespaces } = await client.store.listNamespaces({ prefix: [root], suffix: ["b"], maxDepth: 2 });
  assert.deepEqual(namespaces, [[root, "b"]]);
  await client.store.deleteItem([root, "a"], "one");
  assert.equal(await client.store.getItem([root, "a"], "one"), null);
});

test("a namespace that cannot be is refused", async () => {
  await assert.rejects(client.store.putItem(["a.b"], "k", {}), /period/);
});
