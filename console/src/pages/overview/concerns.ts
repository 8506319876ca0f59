/** What needs attention, from what the server tells: each in a sentence, with the place where it is seen and mended. */
import { age, duration, number, plural } from "../../lib/format";
import type { FailureGroup, Overview, Total, Workers } from "../../lib/operator";
import { link } from "../../lib/route";

export interface Concern {
  id: string;
  /** `bad`: runs fail or do not go on; `late`: look at it; `held`: somebody waits for a person. */
  kind: "bad" | "late" | "held";
  text: string;
  to: string;
  /** What the place is called. */
  place: string;
}

/** A finding of the doctor, as far as a sentence needs it. */
export interface FoundByDoctor {
  findings: { code: string }[];
}

export interface Known {
  overview: Overview;
  workers?: Workers;
  builds?: Total[];
  failures?: FailureGroup[];
  doctor?: FoundByDoctor;
  /** The state sentence of the oldest waiting run. */
  waits?: string;
}

const WAITS_S = 10;
const WAITS_LONG_S = 60;
const LAG_S = 1;
const LONG_S = 600;
const TIMES_P95 = 10;
const FEWEST_FAILURES = 3;
const FLOOD = 20;
const FLOOD_SHARE = 0.5;

export function concernsOf(known: Known, now: number): Concern[] {
  const found = [
    ...ofWorkers(known.workers),
    ...ofWaiting(known),
    ...ofOwners(known.overview),
    ...ofBuilds(known),
    ...ofThings(known),
    ...ofLongRuns(known.overview, now),
  ];
  const order = ["bad", "late", "held"];
  return found.sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
}

function ofWorkers(workers: Workers | undefined): Concern[] {
  const to = link(["workers"]);
  const stranded = (workers?.stranded ?? []).map((one): Concern => {
    const which = one.build ? `build ${one.build} of ${one.graph_id}` : one.graph_id;
    const text = `${plural(one.threads, "thread waits", "threads wait")} for ${which}, which no worker has; the oldest since ${age(one.oldest_at)}.`;
    return { id: `stranded ${which}`, kind: "bad", text, to, place: "Workers" };
  });
  const each = (workers?.workers ?? []).flatMap((worker): Concern[] => {
    if (worker.state === "silent") {
      const text = `Worker ${worker.worker_id} has not renewed its lease for ${duration(worker.renewed_s)}; ${plural(worker.running, "run")} of it will be taken over.`;
      return [{ id: `silent ${worker.worker_id}`, kind: "bad", text, to, place: "Workers" }];
    }
    if ((worker.lag_s ?? 0) < LAG_S) return [];
    const text = `The loop of worker ${worker.worker_id} was blocked for ${duration(worker.lag_s!)}: an agent calls blocking code.`;
    return [{ id: `lag ${worker.worker_id}`, kind: "late", text, to, place: "Workers" }];
  });
  return [...stranded, ...each];
}

function ofWaiting({ overview, waits }: Known): Concern[] {
  const run = overview.oldest_waiting;
  if (!run || run.age_s < WAITS_S) return [];
  const kind = run.age_s < WAITS_LONG_S ? "late" : "bad";
  const text = `A run of ${run.graph_id} has waited ${duration(run.age_s)}${waits ? `: ${waits}` : "."}`;
  return [{ id: "waiting", kind, text, to: link(["run", run.run_id]), place: "Run" }];
}

/** An owner whose runs are most of those that wait. */
function ofOwners(overview: Overview): Concern[] {
  const [first] = overview.queue_by_owner;
  if (!first?.owner || first.runs < FLOOD || first.runs < overview.waiting * FLOOD_SHARE) return [];
  const text = `${number(first.runs)} of ${number(overview.waiting)} waiting runs are of owner ${first.owner}.`;
  const to = link(["runs"], { status: "pending", owner: first.owner });
  return [{ id: "flood", kind: "late", text, to, place: "Runs" }];
}

/** The newest build, if its runs fail much more often than those of others. */
function ofBuilds({ builds = [], workers, failures = [] }: Known): Concern[] {
  const name = newestBuild(builds, workers);
  const newest = builds.find((one) => one.name === name);
  if (!newest || builds.length < 2) return [];
  const rest = builds.filter((one) => one !== newest);
  const failed = newest.failed ?? 0;
  const others = shareOf(sum(rest, "failed"), sum(rest, "runs"));
  if (failed < FEWEST_FAILURES || shareOf(failed, newest.runs ?? 0) < Math.max(0.05, 2 * others)) return [];
  const first = failures.find((one) => one.first_build === newest.name);
  const why = first ? ` New: ${first.error} in ${first.graph_id}.` : "";
  const text = `Since build ${newest.name} came, ${number(failed)} of ${plural(newest.runs ?? 0, "run")} failed; before ${Math.round(others * 100)} %.${why}`;
  const to = link(["overview"], { build: newest.name });
  return [{ id: "build", kind: "bad", text, to, place: "Failures" }];
}

/** The build of the live worker that started last, of those that execute runs; without workers the one whose first run ended last. */
export function newestBuild(builds: Total[], workers?: Workers): string | undefined {
  const live = workers?.workers.filter((worker) => worker.state !== "silent" && worker.capacity).map((worker) => [worker.build, worker.started_at] as const);
  const all = live?.length ? live : builds.map((one) => [one.name, one.first_ended_at ?? ""] as const);
  return [...all].sort(([, a], [, b]) => Date.parse(b) - Date.parse(a))[0]?.[0];
}

const sum = (totals: Total[], of: "runs" | "failed") => totals.reduce((all, one) => all + (one[of] ?? 0), 0);
const shareOf = (part: number, whole: number) => (whole ? part / whole : 0);

function ofThings({ overview: { attention }, doctor }: Known): Concern[] {
  const found: [number, Concern["kind"], string, string, string, Record<string, string>][] = [
    [doctor?.findings.length ?? 0, "bad", "The doctor found # thing|The doctor found # things", "doctor", "Doctor", {}],
    [attention.failed_webhooks, "bad", "# webhook was not delivered|# webhooks were not delivered", "webhooks", "Webhooks", { status: "failed" }],
    [attention.retried_webhooks, "late", "# webhook fails, and is tried again|# webhooks fail, and are tried again", "webhooks", "Webhooks", { status: "pending" }],
    [attention.late_crons, "late", "# cron is late|# crons are late", "crons", "Crons", {}],
    [attention.failed_threads, "late", "The last run of # thread failed|The last run of # threads failed", "threads", "Threads", { status: "error" }],
    [attention.interrupted_threads, "held", "# thread waits for an answer|# threads wait for an answer", "inbox", "Inbox", {}],
  ];
  return found
    .filter(([count]) => count > 0)
    .map(([count, kind, words, page, place, query]) => {
      const [one, many] = words.split("|") as [string, string];
      return { id: words, kind, text: `${(count === 1 ? one : many).replace("#", number(count))}.`, to: link([page], query), place };
    });
}

function ofLongRuns(overview: Overview, now: number): Concern[] {
  const long = Math.max(LONG_S, TIMES_P95 * (overview.p95_s ?? 0));
  return overview.running_by
    .map((one) => ({ ...one, seconds: (now - Date.parse(one.oldest_at)) / 1000 }))
    .filter((one) => one.seconds > long)
    .map((one) => ({
      id: `long ${one.graph_id} ${one.worker_id}`,
      kind: "late",
      text: `A run of ${one.graph_id} has executed for ${duration(one.seconds)} on worker ${one.worker_id}.`,
      to: link(["runs"], { status: "running", graph: one.graph_id }),
      place: "Runs",
    }));
}

/** One sentence: is it healthy, and if not, what comes first. */
export function healthSentence(known: Known, concerns: Concern[]): string {
  const { overview } = known;
  const [first] = concerns;
  if (first && first.kind !== "held") {
    const more = concerns.length - 1;
    return `${first.text}${more ? ` ${plural(more, "more thing needs", "more things need")} attention.` : ""}`;
  }
  const ended = overview.minutes.flatMap((minute) => minute.ended);
  const runs = ended.reduce((all, one) => all + one.runs, 0);
  const failed = ended.filter((one) => ["error", "timeout"].includes(one.status)).reduce((all, one) => all + one.runs, 0);
  const work = `${number(overview.running)} of ${plural(overview.slots, "slot")} in use, ${overview.waiting ? plural(overview.waiting, "run waits", "runs wait") : "nothing waits"}`;
  const hour = runs ? `; ${plural(runs, "run")} ended in the last hour, ${failed ? `${number(failed)} of them failed` : "none of them failed"}` : "";
  return `Healthy: ${work}${hour}.${first ? ` ${first.text}` : ""}`;
}
