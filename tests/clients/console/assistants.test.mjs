import assert from "node:assert/strict";
import { test } from "node:test";
import { KEYS, accessible, client, look, visit } from "./kit.mjs";

test("assistants are listed, and the server's own ones show their graph and schemas", async () => {
  await visit("assistants", {}, async (page) => {
    await page.getByText(/^\d+ assistants of \d+ graphs; 0 made by users\.$/).waitFor();
    await page.getByRole("combobox", { name: "Filter of assistants" }).fill("graph:nested");
    await page.keyboard.press("Enter");
    await page.getByText("1 assistant of 1 graph").waitFor();
    await accessible(page);
    await page.getByRole("region", { name: "Assistants" }).getByRole("link", { name: "nested" }).first().click();
    await page.getByText("It is the server's own for this graph, and cannot be changed.").waitFor();
    await page.getByRole("img", { name: /^Graph of 3 nodes/ }).waitFor();
    await page.getByLabel("Open subgraphs").check();
    await page.getByRole("img", { name: /answer/ }).waitFor();
    await accessible(page);
    assert.equal(await page.getByRole("button", { name: "Edit" }).count(), 0);
    await page.getByRole("link", { name: "Schemas" }).click();
    await page.getByRole("heading", { name: "Input" }).waitFor();
    await accessible(page);
  });
  await visit("assistants/chat", {}, async (page) => {
    await page.getByText("Runs graph chat.").waitFor();
  });
  await look("assistants", "assistants", {}, "tbody tr");
});

test("an assistant is made from a form, changed, set back to an earlier version, and deleted", async () => {
  const api = client(KEYS.owner);
  await visit("assistants?graph=settings", { key: KEYS.owner }, async (page) => {
    await page.getByRole("button", { name: "New assistant" }).click();
    await page.getByLabel("Name").fill("Careful one");
    await page.getByRole("dialog").getByLabel("mood", { exact: false }).fill("calm");
    await accessible(page);
    await page.getByRole("button", { name: "Make it" }).click();
    await page.getByRole("heading", { name: "Careful one" }).waitFor();
    await page.getByRole("button", { name: "Edit" }).click();
    await page.getByText("This makes version 2.").waitFor();
    await page.getByRole("dialog").getByLabel("mood", { exact: false }).fill("wild");
    await page.getByRole("button", { name: "Save as a new version" }).click();
    await page.getByText("Its version is 2.").waitFor();
    await page.getByRole("link", { name: "Versions" }).click();
    await page.getByRole("button", { name: "Make it current" }).click();
    await page.getByText("Runs that start from now on").waitFor();
    await accessible(page);
    await page.getByRole("dialog").getByRole("button", { name: "Make it current" }).click();
    await page.getByText("1 · current").waitFor();
    const [made] = await api.assistants.search({ graphId: "settings", metadata: {}, limit: 1, sortBy: "updated_at", sortOrder: "desc" });
    assert.deepEqual(made.context, { mood: "calm" });
    await page.getByRole("link", { name: "Configuration" }).click();
    await page.getByText("calm").first().waitFor();
    await accessible(page);
    await page.getByRole("button", { name: "Delete" }).click();
    await page.getByText("Crons and clients that name it fail").waitFor();
    await accessible(page);
    await page.getByRole("button", { name: "Delete the assistant" }).click();
    await page.waitForURL(/#\/assistants$/);
    await page.getByText("0 made by users").waitFor();
  });
  const own = await api.assistants.create({ graphId: "tools", name: "Sums and a very long name ".repeat(6), context: { mood: "calm" } });
  await look("assistant", `assistants/${own.assistant_id}`, { key: KEYS.owner }, ".graph svg");
  await visit(`assistants/${own.assistant_id}?tab=configuration`, { key: KEYS.reader }, async (page) => {
    await page.getByText("Configuration is payload").waitFor();
    assert.equal(await page.getByRole("button", { name: "Delete" }).count(), 0);
  });
  await visit(`assistants/${own.assistant_id}`, { key: KEYS.other, allow: [/status of 404/] }, async (page) => {
    await page.getByText("There is no assistant").waitFor();
  });
});
