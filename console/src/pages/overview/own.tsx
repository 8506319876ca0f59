/** The overview of an owner: their own runs, threads, crons and webhooks. */
import { get, page, post } from "../../lib/api";
import { FirstRun } from "../../lib/first-run";
import { between, duration, number, plural } from "../../lib/format";
import { useLive } from "../../lib/live";
import { link } from "../../lib/route";
import { type RunSummary, causeOf, shownStatus } from "../../lib/runs";
import { Age, Chip, Head, Loaded, Status } from "../../lib/ui";
import { Table } from "../../lib/table";
import { Concerns } from "./attention";
import type { Concern } from "./concerns";
import { OwnFailures } from "./own-failures";

const EVERY_MS = 5_000;
const MOST = 100;

const DAY_MS = 86_400_000;
const WAITS_LONG_S = 60;

interface Own {
  active: RunSummary[];
  more: boolean;
  last: RunSummary[];
  failures: RunSummary[];
  failed: number;
  asking: number;
  undelivered: number;
}

async function read(stop: AbortSignal): Promise<Own> {
  const since = new Date(Date.now() - DAY_MS).toISOString();
  const [active, last, failures, failed, asking, undelivered] = await Promise.all([
    page<RunSummary>("POST", "/runs/search", { body: { status: ["pending", "running"], limit: MOST }, signal: stop }),
    post<RunSummary[]>("/runs/search", { limit: 10 }, stop),
    post<RunSummary[]>("/runs/search", { status: ["error", "timeout"], since, limit: MOST }, stop),
    post<number>("/threads/count", { status: "error" }, stop),
    post<number>("/threads/count", { status: "interrupted" }, stop),
    get<unknown[]>("/webhooks", { delivery_status: "failed", limit: MOST }, stop),
  ]);
  return { active: active.items, more: active.next !== null, last, failures, failed, asking, undelivered: undelivered.length };
}

export function OwnOverview() {
  const live = useLive(read, [], EVERY_MS);
  return (
    <>
      <Head title="Overview" live={live} sentence={live.data && sentence(live.data)} />
      <Loaded live={live}>
        {(own) =>
          own.last.length ? (
            <>
              <Concerns concerns={concernsOf(own)} />
              <OwnFailures failures={own.failures} most={MOST} />
              <section class="section" aria-labelledby="last">
                <div class="section-head">
                  <h2 id="last">Last runs</h2>
                  <a href={link(["runs"])}>All runs</a>
                </div>
                <Table
                  label="Last runs"
                  rows={own.last}
                  id={(run) => run.run_id}
                  open={(run) => link(["run", run.run_id])}
                  columns={[
                    { name: "Status", cell: (run) => <Status status={shownStatus(run)} /> },
                    { name: "Run", cell: (run) => <Chip to={["run", run.run_id]} id={run.run_id} /> },
                    { name: "Graph", cell: (run) => run.graph_id },
                    { name: "Thread", cell: (run) => <Chip to={["thread", run.thread_id]} id={run.thread_id} />, wide: true },
                    { name: "Made", cell: (run) => <Age at={run.created_at} />, end: true },
                  ]}
                />
              </section>
            </>
          ) : (
            <FirstRun />
          )
        }
      </Loaded>
    </>
  );
}

function sentence({ active, more, last }: Own): string {
  if (!last.length) return "You have made no run yet.";
  if (!active.length) return "None of your runs is active.";
  if (more) return `More than ${number(MOST)} of your runs are active.`;
  const running = active.filter((run) => run.status === "running").length;
  return `${plural(running, "of your runs runs", "of your runs run")}, ${plural(active.length - running, "waits", "wait")}.`;
}

/** Return the run that has waited the longest; `undefined` if that is not known, or not long. */
function oldestWaiting({ active, more }: Own): RunSummary | undefined {
  const waiting = more ? [] : active.filter((run) => run.status === "pending");
  const oldest = waiting.sort((a, b) => a.created_at.localeCompare(b.created_at))[0];
  return oldest && between(oldest.created_at, null) > WAITS_LONG_S ? oldest : undefined;
}

function concernsOf(own: Own): Concern[] {
  const { failed, asking, undelivered } = own;
  const oldest = oldestWaiting(own);
  const found: (Concern | false)[] = [
    oldest !== undefined && {
      id: "waits",
      kind: "late",
      text: `The oldest of your waiting runs waits for ${duration(between(oldest.created_at, null))}: it ${causeOf(oldest)}.`,
      to: link(["run", oldest.run_id]),
      place: "Run",
    },
    undelivered > 0 && {
      id: "webhooks",
      kind: "bad",
      text: `${undelivered < MOST ? number(undelivered) : `${MOST} or more`} webhooks were not delivered.`,
      to: link(["webhooks"], { status: "failed" }),
      place: "Webhooks",
    },
    failed > 0 && {
      id: "failed",
      kind: "late",
      text: `The last run of ${plural(failed, "thread")} failed.`,
      to: link(["threads"], { status: "error" }),
      place: "Threads",
    },
    asking > 0 && {
      id: "asking",
      kind: "held",
      text: `${plural(asking, "thread waits", "threads wait")} for an answer.`,
      to: link(["inbox"]),
      place: "Inbox",
    },
  ];
  return found.filter((one) => one !== false);
}
