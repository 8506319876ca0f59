/** Threads: a live list with a filter. */
import { useState } from "preact/hooks";
import { request } from "../lib/api";
import { python, shell } from "../lib/code";
import { FilterBar, useFilter } from "../lib/filter-bar";
import { number, plural } from "../lib/format";
import { useLive, useNow } from "../lib/live";
import { operates } from "../lib/operator";
import { visibleText } from "../lib/plain";
import { type Query, link, place, setQuery } from "../lib/route";
import { withoutPayload } from "../lib/runs";
import { permits } from "../lib/session";
import { listEveryMs, useChanges } from "../lib/stream";
import { type Columns, Table } from "../lib/table";
import { SUMMARY, type ThreadSummary, assistantOf, titleOf } from "../lib/threads";
import { Age, AsCode, Button, Chip, Empty, Head, Loaded, Status } from "../lib/ui";
import { Views } from "../lib/views";
import { Bulk } from "./threads/bulk";
import { OTHERS, threadFields, threadFilter } from "./threads/fields";
import { useTitles } from "./threads/titles";

interface Found {
  threads: ThreadSummary[];
  /** How many match; `null`: more than the server counts. */
  total: number | null;
  /** Where older ones begin; `null`: there are none. */
  next: string | null;
}

const PAGE = 100;
/** Rows that are read again and again; older ones have a page of their own. */
const MOST = 500;
const VIEWS: [string, Query][] = [
  ["All", {}],
  ["Busy", { status: "busy" }],
  ["Waits for a person", { status: "interrupted" }],
  ["Failed", { status: "error" }],
];

async function search(filter: Record<string, unknown>, before: string | undefined, limit: number, stop: AbortSignal): Promise<Found> {
  const body = { ...filter, after: before ?? "", limit, select: operates() ? [...SUMMARY, "owner"] : SUMMARY };
  const answer = await request("POST", "/threads/search", { body, headers: withoutPayload(), signal: stop });
  const total = answer.headers.get("X-Pagination-Total");
  return {
    threads: (await answer.json()) as ThreadSummary[],
    total: total === null ? null : Number(total),
    next: answer.headers.get("X-Pagination-Next"),
  };
}

export default function Threads() {
  const { query } = place.value;
  const given = useFilter(threadFields([]), OTHERS);
  const refused = given.errors.length > 0;
  const { before } = query;
  const [limit, setLimit] = useState(PAGE);
  const [selected, select] = useState<ReadonlySet<string>>(new Set());
  const filter = threadFilter(given.query);
  const live = useLive(refused ? undefined : (stop) => search(filter, before, limit, stop), [given, before], listEveryMs.value);
  useChanges(() => true, () => !before && live.reload());
  const threads = live.data?.threads ?? [];
  const titles = useTitles(threads);
  const now = useNow(5_000);
  const acts = permits("threads.update") || permits("threads.delete");
  const more = () => {
    if (limit < MOST) setLimit(limit + PAGE);
    else setQuery({ before: live.data?.next ?? undefined });
    live.reload();
  };
  return (
    <>
      <Head title="Threads" sentence={live.data && sentence(live.data, Boolean(before))} live={refused ? undefined : live}>
        {!refused && (
          <AsCode
            http={`POST /threads/search ${JSON.stringify(filter)}`}
            cli={`runlane threads ls${given.query["status"] ? ` --status ${given.query["status"]}` : ""}${given.query["graph"] ? ` --graph ${shell(given.query["graph"])}` : ""}`}
            python={`await client.threads.search(${Object.entries(filter)
              .map(([name, value]) => `${name}=${python(value)}`)
              .join(", ")})`}
          />
        )}
      </Head>
      <FilterBar label="Filter of threads" fields={threadFields(threads)} given={given} example="status:error graph:agent">
        <Views page="threads" common={VIEWS} query={given.query} />
        {before && (
          <p>
            Older threads. <a href={link(["threads"], { ...query, before: undefined })}>To the newest</a>
          </p>
        )}
        <Loaded live={live}>
          {(found) =>
            found.threads.length ? (
              <>
                <Table
                  label="Threads"
                  rows={found.threads}
                  id={(thread) => thread.thread_id}
                  columns={columns(titles, now, found.threads.some((thread) => thread.owner))}
                  open={(thread) => link(["thread", thread.thread_id])}
                  selected={acts ? selected : undefined}
                  onSelect={acts ? select : undefined}
                />
                {found.next !== null && (
                  <p class="end-of-list">
                    <Button onClick={more}>More</Button>
                  </p>
                )}
              </>
            ) : (
              <Empty>
                {Object.keys(given.query).length ? "No thread matches." : "There are no threads yet. The first run makes one: "}
                {!Object.keys(given.query).length && <a href={link(["runs"])}>how to make it</a>}
              </Empty>
            )
          }
        </Loaded>
        <Bulk selected={selected} onClear={() => select(new Set())} onDone={() => (select(new Set()), live.reload())} />
      </FilterBar>
    </>
  );
}

function columns(titles: ReadonlyMap<string, string>, now: number, owners: boolean): Columns<ThreadSummary> {
  return [
    { name: "Status", cell: (thread) => <Status status={statusOf(thread)} /> },
    {
      name: "Thread",
      cell: (thread) => <Chip to={["thread", thread.thread_id]} id={thread.thread_id} label={titleOf(thread) ?? titles.get(thread.thread_id)} />,
    },
    { name: "Graph", cell: (thread) => <Graph thread={thread} /> },
    owners && { name: "Owner", cell: (thread) => thread.owner && <Chip to={["threads"]} query={{ owner: thread.owner }} id={thread.owner} label={thread.owner} /> },
    { name: "Why", cell: (thread) => whyOf(thread) && <bdi title={whyOf(thread)}>{whyOf(thread)}</bdi> },
    { name: "Created", end: true, wide: true, cell: (thread) => <Age at={thread.created_at} now={now} /> },
    { name: "Changed", end: true, cell: (thread) => <Age at={thread.updated_at} now={now} /> },
  ];
}

function Graph({ thread }: { thread: ThreadSummary }) {
  const assistant = assistantOf(thread);
  return assistant ? <Chip to={["assistants", assistant]} id={assistant} label={String(thread.metadata["graph_id"] ?? assistant)} /> : null;
}

const questionsOf = (thread: ThreadSummary) => Object.values(thread.interrupts).flat().length;
/** A thread that waits for a person is told from one whose run was cancelled. */
const statusOf = (thread: ThreadSummary) => (thread.status === "interrupted" && questionsOf(thread) ? "paused" : thread.status);

function whyOf(thread: ThreadSummary): string {
  if (thread.status === "interrupted" && questionsOf(thread)) return `waits for ${plural(questionsOf(thread), "answer")}`;
  const { error } = thread;
  return error && thread.status === "error" ? visibleText(error.message ? `${error.error}: ${error.message}` : error.error) : "";
}

function sentence({ threads, total }: Found, older: boolean): string {
  if (!threads.length) return older ? "No older threads." : "No threads.";
  const count = (status: string) => threads.filter((thread) => statusOf(thread) === status).length;
  const parts = [
    [count("busy"), "busy"],
    [count("paused"), "waiting for a person"],
    [count("error"), "failed"],
    [count("interrupted"), "interrupted"],
    [count("idle"), "idle"],
  ] as const;
  const list = parts.filter(([n]) => n).map(([n, word]) => `${number(n)} ${word}`);
  if (older) return `${plural(threads.length, "older thread")}: ${list.join(", ")}.`;
  const all = total === null ? "More than 1,000 threads" : plural(total, "thread");
  return `${all}${total === threads.length ? "" : `; of the ${number(threads.length)} shown`}: ${list.join(", ")}.`;
}
