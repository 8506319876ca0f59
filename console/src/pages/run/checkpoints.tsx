/** The history of the run's thread, with its forks; from each of its checkpoints one can go on otherwise. */
import { useState } from "preact/hooks";
import { clock, moment, nodesOf, shortId } from "../../lib/format";
import { useLive } from "../../lib/live";
import { link } from "../../lib/route";
import { isActive } from "../../lib/runs";
import { permits, seesPayload } from "../../lib/session";
import { Button, Copy, Empty, Loaded } from "../../lib/ui";
import type { Run } from "./data";
import { EditState } from "./edit-state";
import { ForkForm } from "./fork-form";
import { type Laned, lanesOf } from "./lanes";
import { type Checkpoint, checkpointsOf } from "./steps";

const PAGE = 100;
const ROW = 30;
const ACTIVE_MS = 3_000;
const LANE = 14;

type Asked = { id: string; does: "fork" | "edit" };

export function CheckpointsTab({ run }: { run: Run }) {
  const [pages, setPages] = useState(1);
  const [asked, ask] = useState<Asked>();
  const load = (stop: AbortSignal) => checkpointsOf(run.thread_id, { limit: pages * PAGE }, stop);
  const live = useLive(load, [run.thread_id, run.status, pages], isActive(run) ? ACTIVE_MS : null);
  return (
    <Loaded live={live}>
      {(all) =>
        all.length ? (
          <>
            <History all={all} run={run} ask={ask} />
            {all.length >= pages * PAGE && (
              <button type="button" class="more" onClick={() => setPages(pages + 1)}>
                Older checkpoints
              </button>
            )}
            {asked?.does === "fork" && <ForkForm run={run} checkpointId={asked.id} onClose={() => ask(undefined)} />}
            {asked?.does === "edit" && (
              <EditState run={run} checkpointId={asked.id} onClose={() => ask(undefined)} onDone={() => (ask(undefined), live.reload())} />
            )}
          </>
        ) : (
          <Empty>The thread has no checkpoint yet.</Empty>
        )
      }
    </Loaded>
  );
}

function History({ all, run, ask }: { all: Checkpoint[]; run: Run; ask: (asked: Asked) => void }) {
  const lanes = lanesOf(all);
  const width = LANE * (1 + Math.max(...lanes.map(({ lane, passing }) => Math.max(lane, ...passing))));
  const forks = permits("threads.create_run") && seesPayload.value && run.assistant_id !== null;
  const edits = permits("threads.update") && seesPayload.value && !isActive(run);
  return (
    <ol class="checkpoints">
      {all.map((one, at) => (
        <li key={one.checkpoint_id} class={one.metadata?.run_id === run.run_id ? "checkpoint-own" : undefined}>
          <Drawing laned={lanes[at]!} width={width} own={one.metadata?.run_id === run.run_id} />
          <span class="checkpoint-name">
            {one.metadata?.step !== undefined && <b>step {one.metadata.step} </b>}
            {one.next.length ? <bdi>then {nodesOf(one.next)}</bdi> : "the end"}
            {one.metadata?.source && one.metadata.source !== "loop" && <span class="pill-still">{one.metadata.source}</span>}
          </span>
          <span class="checkpoint-when">
            {one.created_at && (
              <time dateTime={one.created_at} title={moment(one.created_at)}>
                {clock(one.created_at)}
              </time>
            )}
          </span>
          <span class="checkpoint-id mono">
            {shortId(one.checkpoint_id)} <Copy text={one.checkpoint_id} what={one.checkpoint_id} />
          </span>
          <span class="checkpoint-run">
            {one.metadata?.run_id === run.run_id ? "this run" : one.metadata?.run_id && <a href={link(["run", one.metadata.run_id])}>run {shortId(one.metadata.run_id)}</a>}
          </span>
          <span class="actions">
            <a href={link(["run", run.run_id], { tab: "state", checkpoint: one.checkpoint_id })}>State</a>
            <a href={link(["run", run.run_id], { tab: "state", checkpoint: one.checkpoint_id, against: one.parent_checkpoint_id ?? undefined })}>Changes</a>
            {forks && <Button onClick={() => ask({ id: one.checkpoint_id, does: "fork" })}>Fork</Button>}
            {edits && <Button onClick={() => ask({ id: one.checkpoint_id, does: "edit" })}>Edit</Button>}
          </span>
        </li>
      ))}
    </ol>
  );
}

function Drawing({ laned, width, own }: { laned: Laned; width: number; own: boolean }) {
  const x = (lane: number) => LANE * lane + LANE / 2;
  const middle = ROW / 2;
  return (
    <span class="lanes" style={{ width: `${width}px` }}>
      <svg width={width} height="100%" aria-hidden="true">
        {laned.passing.map((lane) => (
          <line key={lane} x1={x(lane)} x2={x(lane)} y1={0} y2="100%" />
        ))}
        {laned.joining.map((lane) => (
          <path key={lane} d={`M${x(lane)} 0C${x(lane)} ${middle} ${x(laned.lane)} 0 ${x(laned.lane)} ${middle}`} />
        ))}
        {laned.goesOn && <line x1={x(laned.lane)} x2={x(laned.lane)} y1={middle} y2="100%" />}
        <circle cx={x(laned.lane)} cy={middle} r={own ? 5 : 4} class={own ? "own" : undefined} />
      </svg>
    </span>
  );
}
