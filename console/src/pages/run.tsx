/** A run: what it does, why, and what it has said. */
import { useEffect, useState } from "preact/hooks";
import { place } from "../lib/route";
import { isActive } from "../lib/runs";
import { useChanges } from "../lib/stream";
import { Empty, Loaded } from "../lib/ui";
import { useRun } from "./run/data";
import { Opened } from "./run/opened";

export default function Run() {
  const runId = place.value.path[1];
  if (!runId) return <Empty>Which run? Open one from Runs, or search for its id.</Empty>;
  return <Read runId={runId} />;
}

function Read({ runId }: { runId: string }) {
  const [active, setActive] = useState(true);
  const live = useRun(runId, active);
  const run = live.data?.run;
  useChanges((change) => change.run_id === runId, live.reload);
  useEffect(() => {
    if (run) setActive(isActive(run));
    if (run) document.title = `Run ${runId.slice(0, 8)}: ${run.status} · Runlane`;
  }, [run?.status]);
  return <Loaded live={live}>{(known) => <Opened known={known} live={live} />}</Loaded>;
}
