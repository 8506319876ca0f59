/** The page of a run that was found: its head, its timeline, and the tabs. */
import { Cut } from "../../lib/json";
import { Linked } from "../../lib/linked";
import type { Live } from "../../lib/live";
import { OpenQuestions } from "../../lib/open-questions";
import { go, link, place } from "../../lib/route";
import { isActive, shownStatus } from "../../lib/runs";
import { seesLogs } from "../../lib/session";
import { Chip, Empty, Head, Status, Tabs, tabOf } from "../../lib/ui";
import { Actions } from "./actions";
import { CauseTab } from "./cause";
import { CheckpointsTab } from "./checkpoints";
import { ConversationTab } from "./conversation";
import { type Known, buildOf, graphOf } from "./data";
import { EventsTab } from "./events";
import type { RunLog } from "./log";
import { RawTab } from "./raw";
import { CancelReceipt } from "./receipt";
import { RecordsTab, Traceback } from "./records";
import { Replay } from "./replay";
import { StateTab } from "./state";
import { Timeline } from "./timeline";
import { UsageTab } from "./usage";
import { useLog } from "./use-log";

const TABS: [string, string][] = [
  ["conversation", "Conversation"],
  ["events", "Events"],
  ["state", "State"],
  ["checkpoints", "Checkpoints"],
  ["usage", "Usage"],
  ["cause", "Cause"],
  ["log", "Log"],
  ["raw", "Raw"],
];
/** Those that the scrub bar drives. */
const REPLAYED = ["conversation", "events", "state"];

/** Of an error above the timeline, which stays in view. */
const ERROR_CHARS = 500;
const ERROR_LINES = 6;

export function Opened({ known, live }: { known: Known; live: Live<Known> }) {
  const { run } = known;
  const log = useLog(run);
  const tab = tabOf(TABS, "conversation");
  return (
    <>
      <Head title={<Title known={known} />} sentence={<Sentence known={known} />} live={live}>
        <Actions run={run} said={log.newest.value} onDone={live.reload} />
      </Head>
      <CancelReceipt run={run} />
      {run.end_reason === "paused" && (
        <OpenQuestions
          threadId={run.thread_id}
          version={run.run_id}
          onAnswered={(id) => go(["run", id])}
          none="Its question was answered: the thread waits for nobody now."
        />
      )}
      <Timeline known={known} said={log.newest.value} lostAt={live.freshness === "stale" ? live.asOf : undefined} />
      <Tabs names={TABS.filter(([name]) => name !== "log" || seesLogs.value)} chosen={tab} to={(name) => link(["run", run.run_id], { ...place.value.query, tab: name })} />
      {REPLAYED.includes(tab) && <Replay log={log} run={run} active={isActive(run)} />}
      <Tab name={tab} known={known} log={log} />
    </>
  );
}

function Sentence({ known: { run, why } }: { known: Known }) {
  const message = run.error?.message;
  return (
    <>
      <Linked text={why.sentence} thread={run.thread_id} />
      {message && (
        <span class="run-error" dir="auto">
          <Cut text={message} most={ERROR_CHARS} lines={ERROR_LINES} />
        </span>
      )}
      {run.error && seesLogs.value && <Traceback run={run} />}
    </>
  );
}

function Tab({ name, known, log }: { name: string; known: Known; log: RunLog }) {
  const { run } = known;
  switch (name) {
    case "events":
      return <EventsTab log={log} active={isActive(run)} />;
    case "state":
      return <StateTab log={log} run={run} />;
    case "checkpoints":
      return <CheckpointsTab run={run} />;
    case "usage":
      return <UsageTab run={run} />;
    case "cause":
      return <CauseTab known={known} />;
    case "log":
      return seesLogs.value ? <RecordsTab run={run} /> : <Empty>What runs log is for operators: it has the texts of exceptions.</Empty>;
    case "raw":
      return <RawTab known={known} />;
    default:
      return <ConversationTab log={log} run={run} />;
  }
}

function Title({ known: { run, why } }: { known: Known }) {
  const graph = graphOf(run);
  const build = buildOf(why);
  const retried = run.metadata["retry_of"];
  return (
    <span class="run-title">
      <Status status={shownStatus(run)} />
      <Chip to={["run", run.run_id]} id={run.run_id} />
      <span class="run-parts">
        {run.assistant_id && (
          <Chip to={["assistants", run.assistant_id]} id={run.assistant_id} label={graph ?? undefined} title="Assistant" />
        )}
        {build && <span title={`Build ${build}`}>@{build.slice(0, 7)}</span>}
        <span>
          thread <Chip to={["thread", run.thread_id]} id={run.thread_id} />
        </span>
        {typeof retried === "string" && (
          <span>
            retry of <Chip to={["run", retried]} id={retried} />
          </span>
        )}
        {why.owner && <Chip to={["runs"]} query={{ owner: why.owner }} id={why.owner} label={why.owner} title="Owner" />}
      </span>
    </span>
  );
}
