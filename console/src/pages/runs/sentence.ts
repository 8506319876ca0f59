/** The sentence with which the page of runs begins. Pure. */
import { number, plural } from "../../lib/format";
import { type RunSummary, shownStatus } from "../../lib/runs";
import { oldestWait } from "./columns";

interface Shown {
  filtered: boolean;
  /** There are older runs that were not compared. */
  more: boolean;
  older: boolean;
}

export function runsSentence(runs: readonly RunSummary[], { filtered, more, older }: Shown, now: number): string {
  if (!runs.length) return more ? "None of the newest 10,000 runs match." : filtered ? "No run matches." : "There are no runs yet.";
  const count = (status: string) => runs.filter((run) => shownStatus(run) === status).length;
  const parts = [
    [count("running"), "running"],
    [count("pending"), "waiting"],
    [count("error") + count("timeout"), "failed"],
    [count("paused"), "waiting for a person"],
    [count("interrupted"), "cancelled"],
    [count("success"), "succeeded"],
  ] as const;
  const wait = more || older ? "" : oldestWait(runs, now); // of some, the oldest is not the oldest of all
  const list = parts
    .filter(([n]) => n)
    .map(([n, word]) => `${number(n)} ${word}${word === "waiting" && wait ? ` (the oldest for ${wait})` : ""}`)
    .join(", ");
  if (!filtered && (more || older)) return `Of the ${number(runs.length)} ${older ? "older" : "newest"} runs: ${list}.`;
  if (!filtered) return `${plural(runs.length, "run")}: ${list}.`;
  if (more) return `${number(runs.length)} or more runs match: ${list}.`;
  return `${plural(runs.length, "run matches", "runs match")}: ${list}.`;
}
