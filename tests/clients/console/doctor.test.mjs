import { test } from "node:test";
import { KEYS, look, visit } from "./kit.mjs";

test("a server in order says so, and is examined again", async () => {
  await visit("doctor", { key: KEYS.admin }, async (page) => {
    await page.getByText("Nothing is wrong with the database.").waitFor();
    await page.getByRole("button", { name: "Examine now" }).click();
    await page.getByRole("button", { name: "Examine now" }).waitFor();
  });
  await look("doctor", "doctor", {}, "text=Nothing is wrong with the database.");
});
