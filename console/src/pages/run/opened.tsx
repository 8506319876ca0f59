/** The page of a run that was found: its head, its timeline, and the tabs. */
import { useEffect } from "preact/hooks";
import { Linked } from "../../lib/linked";
import type { Live } from "../../lib/live";
import { link, place } from "../../lib/route";
import { Chip, Head, Status, Tabs } from "../../lib/ui";
import { ConversationTab } from "./conversation";
import { type Known, buildOf, graphOf, isActive } from "./data";
import { useLog } from "./log";

const TABS: [string, string][] = [["conversation", "Conversation"]];

export function Opened({ known, live }: { known: Known; live: Live<Known> }) {
  const { run, why } = known;
  const log = useLog(run);
  const tab = place.value.query["tab"] ?? "conversation";
  const ended = log.conversation.value.ended;
  useEffect(() => {
    if (ended) live.reload();
  }, [ended]);
  return (
    <>
      <Head title={<Title known={known} />} sentence={<Linked text={why.sentence} thread={run.thread_id} />} live={live} />
      <Tabs names={TABS} chosen={tab} to={(name) => link(["run", run.run_id], { ...place.value.query, tab: name })} />
      <ConversationTab log={log} run={run} active={isActive(run)} />
    </>
  );
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
