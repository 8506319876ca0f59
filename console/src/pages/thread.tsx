/** One thread: its lane, what was said, its state and its history. */
import { page } from "../lib/api";
import { shortId } from "../lib/format";
import { useLive, useNow } from "../lib/live";
import { OpenQuestions } from "../lib/open-questions";
import { link, place } from "../lib/route";
import { type RunSummary, isActive, withoutPayload } from "../lib/runs";
import { me } from "../lib/session";
import { listEveryMs, useChanges } from "../lib/stream";
import { Table } from "../lib/table";
import { type ThreadSummary, readThread, shortened, titleOf } from "../lib/threads";
import { Empty, Head, Loaded, Status, Tabs, tabOf } from "../lib/ui";
import { runColumns } from "./runs/columns";
import { About } from "./thread/about";
import { Actions } from "./thread/actions";
import { Conversation } from "./thread/conversation";
import { History } from "./thread/history";
import { Lane } from "./thread/lane";
import { Damage } from "./thread/repair";
import { threadSentence } from "./thread/sentence";

interface Known {
  thread: ThreadSummary | undefined;
  runs: RunSummary[];
}

const RUNS = 100;
const TABS: [string, string][] = [
  ["conversation", "Conversation and state"],
  ["history", "History"],
  ["runs", "Runs"],
  ["about", "About"],
];

export default function Thread() {
  const id = place.value.path[1];
  if (!id) return <Empty>Which thread? Open one from Threads, or search for its id.</Empty>;
  return <Read id={id} />;
}

function Read({ id }: { id: string }) {
  const live = useLive<Known>(async (stop) => {
    const body = { thread_id: id, limit: RUNS };
    const options = { body, headers: withoutPayload(), signal: stop };
    const [thread, runs] = await Promise.all([
      readThread(id, withoutPayload(), stop),
      page<RunSummary>("POST", "/runs/search", options),
    ]);
    return { thread, runs: runs.items };
  }, [id], listEveryMs.value);
  useChanges((change) => change.thread_id === id, live.reload);
  return (
    <Loaded live={live}>
      {({ thread, runs }) =>
        thread ? (
          <Opened thread={thread} runs={runs} live={live} />
        ) : (
          <Empty>
            There is no thread {id}, or it is not yours. <a href={link(["threads"])}>Threads</a>
          </Empty>
        )
      }
    </Loaded>
  );
}

function Opened({ thread, runs, live }: { thread: ThreadSummary; runs: RunSummary[]; live: ReturnType<typeof useLive<Known>> }) {
  const now = useNow(1_000);
  const { query } = place.value;
  const id = thread.thread_id;
  const tab = tabOf(TABS, query["checkpoint"] ? "history" : "conversation");
  const title = titleOf(thread) ?? shortened(runs.at(-1)?.usage.first_human_message) ?? `Thread ${shortId(id)}`;
  const owner = runs[0]?.owner;
  const running = runs.find((run) => run.status === "running")?.run_id;
  return (
    <>
      <Head title={<bdi class="title">{title}</bdi>} sentence={threadSentence(thread, runs, now)} live={live}>
        <Actions thread={thread} active={runs.filter(isActive).length} reload={live.reload} />
      </Head>
      <p class="under-head">
        <Status status={thread.status} /> <code>{id}</code>
        {owner && me.value?.operator && (
          <>
            {" "}
            · owner <a href={link(["runs"], { owner })}>{owner}</a>
          </>
        )}
      </p>
      <Damage threadId={id} reload={live.reload} />
      <Lane runs={runs} />
      {thread.status === "interrupted" && <OpenQuestions threadId={id} version={thread.state_updated_at} onAnswered={live.reload} />}
      <Tabs names={TABS} chosen={tab} to={(name) => link(["thread", id], { tab: name === "conversation" ? undefined : name })} />
      {tab === "conversation" && <Conversation threadId={id} version={thread.state_updated_at} running={running} />}
      {tab === "history" && <History thread={thread} checkpoint={query["checkpoint"]} />}
      {tab === "runs" && <Runs id={id} runs={runs} now={now} />}
      {tab === "about" && <About thread={thread} />}
    </>
  );
}

function Runs({ id, runs, now }: { id: string; runs: RunSummary[]; now: number }) {
  if (!runs.length) return <Empty>No runs on this thread.</Empty>;
  return (
    <>
      <Table
        label="Runs"
        rows={runs}
        id={(run) => run.run_id}
        columns={runColumns(runs, now, { owners: false, threads: false })}
        open={(run) => link(["run", run.run_id])}
      />
      {runs.length === RUNS && (
        <p>
          The newest {RUNS}. <a href={link(["runs"], { thread: id })}>All runs of this thread</a>
        </p>
      )}
    </>
  );
}
