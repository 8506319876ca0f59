/** What the run has logged and printed, with tracebacks. */
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { get, path, send } from "../../lib/api";
import { clock, moment, plural } from "../../lib/format";
import { type Live, useLive } from "../../lib/live";
import { visibleText } from "../../lib/plain";
import { isActive, isRecorded, withoutPayload } from "../../lib/runs";
import { Empty, Hidden, Loaded } from "../../lib/ui";
import type { Run } from "./data";

/** What `GET /runs/{run_id}/logs` answers. */
interface LogRecord {
  id: string;
  attempt: number;
  number: number;
  at: string;
  level: string;
  logger: string;
  /** `null` where payload is hidden. */
  text: string | null;
  exception: string | null;
}

const ACTIVE_MS = 2_000;
const PAGE = 200;
/** What a page can show at once; those before are in the API. */
const SHOWN = 2_000;

export function RecordsTab({ run }: { run: Run }) {
  const live = useRecords(run, isActive(run) ? ACTIVE_MS : null);
  return (
    <Loaded live={live} rows={2}>
      {(records) => <Records records={records} run={run} />}
    </Loaded>
  );
}

/** Show where the run failed, read once somebody wants to know: a read of payload is an entry of the audit. */
export const Traceback = ({ run }: { run: Run }) => <Fold>{() => <LastTraceback run={run} />}</Fold>;

function LastTraceback({ run }: { run: Run }) {
  const live = useRecords(run, null);
  return (
    <Loaded live={live} rows={2}>
      {(records) => {
        const last = records.findLast((record) => record.exception);
        if (last) return <Trace text={last.exception!} />;
        return records.some((record) => record.text === null) ? <Hidden /> : <p class="quiet">The log of the run has no traceback.</p>;
      }}
    </Loaded>
  );
}

/** Return the records of *run*, which are read on, each *everyMs*, from where they were. */
function useRecords(run: Run, everyMs: number | null): Live<LogRecord[]> {
  const known = useRef<LogRecord[]>([]);
  return useLive(
    async (stop) => {
      const url = path("/runs/{}/logs", run.run_id);
      const page = () => ({ limit: PAGE, after: known.current.at(-1)?.id });
      for (;;) {
        // Whether there is more is no payload, which an operator reads only if there is: the audit has each such read.
        const isMore = !isRecorded() || (await send<LogRecord[]>("GET", url, { query: page(), headers: withoutPayload(), signal: stop })).length;
        const more = isMore ? await get<LogRecord[]>(url, page(), stop) : [];
        if (!more.length) return known.current;
        known.current = [...known.current, ...more].slice(-SHOWN);
      }
    },
    [run.run_id],
    everyMs,
  );
}

function Records({ records, run }: { records: LogRecord[]; run: Run }) {
  if (!records.length) {
    return <Empty>{isActive(run) ? "Nothing is logged yet." : "There are no log records: the run logged nothing, or they were removed."}</Empty>;
  }
  return (
    <ol class="records" aria-label="Log">
      {records.map((record, at) => (
        <Row key={record.id} record={record} before={records[at - 1]} attempts={run.attempt} />
      ))}
    </ol>
  );
}

function Row({ record, before, attempts }: { record: LogRecord; before: LogRecord | undefined; attempts: number }) {
  const isFirst = before?.attempt !== record.attempt;
  const missing = record.number - 1 - (isFirst ? 0 : before!.number);
  return (
    <>
      {isFirst && attempts > 1 && <li class="record-note">Attempt {record.attempt}</li>}
      {missing > 0 && <li class="record-note">{plural(missing, "record")} not kept</li>}
      <li class={`record record-${record.level}`}>
        <time dateTime={record.at} title={moment(record.at)}>
          {clock(record.at)}
        </time>
        <span class="record-level">{visibleText(record.level)}</span>
        <bdi class="record-logger">{visibleText(record.logger)}</bdi>
        <div class="record-text" dir="auto">
          {record.text === null ? <Hidden /> : visibleText(record.text)}
          {record.exception && <Fold>{() => <Trace text={record.exception!} />}</Fold>}
        </div>
      </li>
    </>
  );
}

/** A traceback that is there once it is opened. */
function Fold({ children }: { children: () => ComponentChildren }) {
  const [opened, setOpened] = useState(false);
  return (
    <details class="traceback" onToggle={(event) => setOpened(event.currentTarget.open)}>
      <summary>Traceback</summary>
      {opened && children()}
    </details>
  );
}

/** Show *text* from its end, which is where the exception was raised. */
function Trace({ text }: { text: string }) {
  const box = useRef<HTMLPreElement>(null);
  useLayoutEffect(() => {
    box.current!.scrollTop = box.current!.scrollHeight;
  }, []);
  return (
    <pre class="trace" ref={box} tabIndex={0} aria-label="Traceback">
      {visibleText(text)}
    </pre>
  );
}
