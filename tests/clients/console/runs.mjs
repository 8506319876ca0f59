// Runs for tests to look at.
import { client } from "./kit.mjs";

export const MODES = ["messages-tuple", "values"];
export const say = (text) => ({ messages: [{ role: "user", content: text }] });

/** Start a run on a thread of its own, and wait for its end if it is to end. */
export async function start(assistant, input, { key, ended = true, streamMode = MODES, ...options } = {}) {
  const api = client(key);
  const { thread_id } = await api.threads.create();
  const run = await api.runs.create(thread_id, assistant, { input, streamMode, ...options });
  if (ended) await api.runs.join(thread_id, run.run_id);
  return run;
}
