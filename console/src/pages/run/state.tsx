/** The state of the run's thread: as the run streamed it, or by a checkpoint; searched, or compared with another one. */
import { useState } from "preact/hooks";
import { get, path } from "../../lib/api";
import { type Difference, differences, occurrences } from "../../lib/diff";
import { plural } from "../../lib/format";
import { Json } from "../../lib/json";
import { type Live, useLive } from "../../lib/live";
import { visibleText } from "../../lib/plain";
import { place, setQuery } from "../../lib/route";
import { seesPayload } from "../../lib/session";
import { Copy, Empty, Failed, Hidden, Skeleton } from "../../lib/ui";
import { CheckpointChoice, useHistory } from "./checkpoint-choice";
import type { Run } from "./data";
import type { RunLog } from "./log";

const MOST = 200;

interface StateOf {
  values: unknown;
  next: string[];
}

export function StateTab({ log, run }: { log: RunLog; run: Run }) {
  const { checkpoint, against } = place.value.query;
  const [text, setText] = useState("");
  const history = useHistory(run);
  const streamed = streamedState(log);
  const ofRun = history.data?.find((one) => one.metadata?.run_id === run.run_id)?.checkpoint_id;
  const wanted = checkpoint ?? (streamed ? undefined : ofRun);
  const chosen = useCheckpoint(run, wanted);
  const other = useCheckpoint(run, against);
  if (!seesPayload.value) {
    return (
      <Empty>
        The state is payload: <Hidden />
      </Empty>
    );
  }
  const shown = wanted ? chosen.data?.values : streamed?.state;
  const error = chosen.error ?? other.error;
  return (
    <>
      <div class="state-bar">
        <CheckpointChoice
          label="State"
          history={history.data}
          value={checkpoint}
          none={streamed ? `as streamed by event ${streamed.number}` : "newest of this run"}
          choose={(id) => setQuery({ checkpoint: id })}
        />
        <CheckpointChoice label="Compare with" history={history.data} value={against} none="nothing" choose={(id) => setQuery({ against: id })} />
        <label>
          Search
          <input type="search" value={text} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        {shown !== undefined && <Copy text={JSON.stringify(shown, null, 2)} what="the state" />}
      </div>
      {error && <Failed error={error} />}
      <Shown shown={shown} other={against ? other : undefined} text={text.trim()} none={history.data?.length === 0} />
    </>
  );
}

/** Return the state that the run had streamed by the moment looked at, if it streams states. */
export function streamedState(log: RunLog): { state: unknown; number: number } | null {
  log.version.value;
  const at = log.lastOf("values", log.moment.value ?? log.count);
  const item = at < 0 ? undefined : log.at(at);
  return item ? { state: item.data, number: item.number } : null;
}

function useCheckpoint(run: Run, id: string | undefined): Live<StateOf | null> {
  return useLive(
    async (stop) => (id && seesPayload.peek() ? get<StateOf>(path("/threads/{}/state/{}", run.thread_id, id), {}, stop) : null),
    [run.thread_id, id],
    null,
  );
}

interface ShownProps {
  shown: unknown;
  other: Live<StateOf | null> | undefined;
  text: string;
  none: boolean;
}

function Shown({ shown, other, text, none }: ShownProps) {
  if (shown === undefined || (other && !other.data)) {
    return none ? <Empty>The thread has no state yet.</Empty> : <Skeleton rows={6} />;
  }
  if (other) return <Differences all={differences(other.data!.values, shown, MOST)} />;
  if (text) return <Found value={shown} text={text} />;
  return <Json value={shown} open={3} />;
}

function Found({ value, text }: { value: unknown; text: string }) {
  const all = occurrences(value, text, MOST);
  if (!all.length) return <Empty>Nothing in the state has “{text}”.</Empty>;
  return (
    <dl class="found">
      {all.map((one) => (
        <div key={one.path}>
          <dt class="mono">{visibleText(one.path)}</dt>
          <dd>
            <Json value={one.value} />
          </dd>
        </div>
      ))}
      {all.length === MOST && <p class="quiet">The first {MOST} places.</p>}
    </dl>
  );
}

const SIGNS = { added: "+", removed: "−", changed: "≠" };

function Differences({ all }: { all: Difference[] }) {
  if (!all.length) return <Empty>Both states are the same.</Empty>;
  return (
    <>
      <p class="quiet">
        {all.length === MOST ? `The first ${MOST} differences` : plural(all.length, "difference")}, from the state compared with to the state shown.
      </p>
      <dl class="found">
        {all.map((one) => (
          <div key={one.path} class={`differs-${one.kind}`}>
            <dt class="mono">
              <span title={one.kind}>{SIGNS[one.kind]}</span> {visibleText(one.path || "(all of it)")}
            </dt>
            <dd>
              {one.kind !== "added" && (
                <div class="before">
                  <span class="hidden">before: </span>
                  <Json value={one.before} open={1} />
                </div>
              )}
              {one.kind !== "removed" && (
                <div class="after">
                  <span class="hidden">after: </span>
                  <Json value={one.after} open={1} />
                </div>
              )}
            </dd>
          </div>
        ))}
      </dl>
    </>
  );
}
