import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, accessible, client, look, visit } from "./kit.mjs";

test("namespaces are a tree, and items are found, written and deleted", async () => {
  const api = client(KEYS.owner);
  await visit("store", { key: KEYS.owner }, async (page) => {
    await page.getByText("No items yet.").waitFor();
    await accessible(page);
  });
  await api.store.putItem(["notes", "oslo"], "weather", { rain: true, text: "<b>wet</b>" });
  await api.store.putItem(["notes", "bergen"], "weather", { rain: true, deep: { list: [1, 2, 3] } });
  await api.store.putItem(["users"], "ada", { likes: "tea ".repeat(60) });
  await visit("store", { key: KEYS.owner }, async (page) => {
    await page.getByText("3 items in all namespaces; 2 namespaces below.").waitFor();
    await accessible(page);
    const below = page.getByRole("list", { name: "Namespaces" });
    await below.getByRole("link", { name: "notes" }).click();
    await below.getByRole("link", { name: "oslo" }).click();
    await page.waitForURL(/store\/notes\/oslo$/);
    await page.getByText("1 item in notes / oslo and below.").waitFor();
    await page.getByRole("button", { name: "weather" }).click();
    await page.getByText("<b>wet</b>").last().waitFor();
    await accessible(page);
    await page.getByRole("button", { name: "Edit" }).click();
    const value = page.getByLabel("Value");
    await value.fill("{");
    await page.getByText("This is not JSON").waitFor();
    await accessible(page);
    await value.fill('{"rain": false}');
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText('{"rain":false}').waitFor();

    await page.getByRole("button", { name: "weather" }).click();
    await page.getByRole("button", { name: "Edit" }).click();
    await api.store.putItem(["notes", "oslo"], "weather", { rain: "much" });
    await value.fill('{"rain": 1}');
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("It was changed meanwhile.").waitFor();
    await page.getByRole("button", { name: "Cancel" }).click();
    assert.deepEqual((await api.store.getItem(["notes", "oslo"], "weather")).value, { rain: "much" });

    await page.getByRole("button", { name: "New item" }).click();
    await page.getByRole("textbox", { name: "Key" }).fill("hotel");
    await value.fill('{"stars": 3}');
    await accessible(page);
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText('{"stars":3}').waitFor();
    await page.getByRole("button", { name: "hotel" }).click();
    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByText("This cannot be undone.").waitFor();
    await page.getByRole("button", { name: "Delete the item" }).click();
    await page.getByText("1 item in notes / oslo and below.").waitFor();
  });
  await look("store", "store", { key: KEYS.owner }, "tbody tr");
  await visit(`store?filter=${encodeURIComponent('{"rain":true}')}`, { key: KEYS.owner }, async (page) => {
    await page.getByText("1 item in all namespaces").waitFor();
  });
  await visit("store?query=wet", { key: KEYS.owner }, async (page) => {
    await page.getByText("This store has no index").waitFor();
  });
});

test("an owner sees no items of another, and an operator has no store", async () => {
  await client(KEYS.owner).store.putItem(["notes"], "mine", { secret: 1 });
  await visit("store", { key: KEYS.other }, async (page) => {
    await page.getByText("No items yet.").waitFor();
  });
  await visit("store", { key: KEYS.admin }, async (page) => {
    await page.getByText("An operator has no store.").waitFor();
    await accessible(page);
  });
});
