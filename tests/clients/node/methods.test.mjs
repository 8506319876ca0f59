import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { connect } from "./kit.mjs";

const client = connect();
// Their routes are not part of the server's API: metadata of a thread is changed with `update`.
const WITHOUT_A_ROUTE = { threads: ["patchState"] };

test("every method of the client is called by a test", () => {
  const folder = new URL(".", import.meta.url);
  const tests = readdirSync(folder).filter((name) => name.endsWith(".mjs")).map((name) => readFileSync(new URL(name, folder), "utf8"));
  for (const part of ["assistants", "threads", "runs", "crons", "store"]) {
    const called = new Set([...tests.join("\n").matchAll(new RegExp(`\\.${part}\\.(\\w+)\\(`, "g"))].map((found) => found[1]));
    const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(client[part])).filter((name) => /^[a-z]/.test(name) && name !== "constructor");
    const missing = methods.filter((name) => !called.has(name) && !WITHOUT_A_ROUTE[part]?.includes(name));
    assert.deepEqual(missing, [], part);
  }
});
