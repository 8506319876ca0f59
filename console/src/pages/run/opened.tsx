/** The page of a run that was found: its head, its timeline, and the tabs. */
import { useEffect } from "preact/hooks";
import { Linked } from "../../lib/linked";
import type { Live } from "../../lib/live";
import { link, place } from "../../lib/route";
import { Chip, Head, Status, Tabs } from "../../lib/ui";
import { CauseTab } from "./cause";
import { ConversationTab } from "./conversation";
import { type Known, buildOf, graphOf, isActive } from "./data";
import { EventsTab } from "./events";
import type { RunLog } from "./log";
import { RawTab } from "./raw";
import { Replay } from "./replay";
import { Timeline } from "./timeline";
import { useLog } from "./use-log";

const TABS: [string, string][] = [
  ["conversation", "Conversation"],
  ["events", "Events"],
  ["cause", "Cause"],
  ["raw", "Raw"],
];
/** Those that the scrub bar drives. */
const REPLAYED = ["conversation", "events"];

export function Opened({ known, live }: { known: Known; live: Live<Known> }) {
  const { run, why } = known;
  const log = useLog(run);
  const tab = place.value.query["tab"] ?? "conversation";
  const ended = log.newest.value.ended;
  useEffect(() => {
    if (ended && isActive(run)) live.reload();
  }, [ended]);
  return (
    <>
      <Head title={<Title known={known} />} sentence={<Linked text={why.sentence} thread={run.thread_id} />} live={live} />
      <Timeline known={known} said={log.newest.value} />
      <Tabs names={TABS} chosen={tab} to={(name) => link(["run", run.run_id], { ...place.value.query, tab: name })} />
      {REPLAYED.includes(tab) && <Replay log={log} run={run} active={isActive(run)} />}
      <Tab name={tab} known={known} log={log} />
    </>
  );
}

function Tab({ name, known, log }: { name: string; known: Known; log: RunLog }) {
  const active = isActive(known.run);
  if (name === "events") return <EventsTab log={log} active={active} />;
  if (name === "cause") return <CauseTab known={known} />;
  if (name === "raw") return <RawTab known={known} />;
  return <ConversationTab log={log} run={known.run} active={active} />;
}

function Title({ known: { run, why } }: { known: Known }) {
  const graph = graphOf(run);
  const build = buildOf(why);
  return (
    <span class="run-title">
      <Status status={run.end_reason === "paused" ? "paused" : run.status} />
      <Chip to={["run", run.run_id]} id={run.run_id} />
      <span class="run-parts">
        {run.assistant_id && (
          <Chip to={["assistants", run.assistant_id]} id={run.assistant_id} label={graph ?? undefined} title="Assistant" />
        )}
        {build && <span title={`Build ${build}`}>@{build.slice(0, 7)}</span>}
        <span>
          thread <Chip to={["thread", run.thread_id]} id={run.thread_id} />
        </span>
        {why.owner && <Chip to={["runs"]} query={{ owner: why.owner }} id={why.owner} label={why.owner} title="Owner" />}
      </span>
    </span>
  );
}
