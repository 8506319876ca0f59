/** Runs of all threads: a live list with a filter. */
import { useState } from "preact/hooks";
import { FilterBar, useFilter } from "../lib/filter-bar";
import { number } from "../lib/format";
import { useLive, useNow } from "../lib/live";
import { type Query, link, place, setQuery } from "../lib/route";
import { isRecorded } from "../lib/runs";
import { me, permits, seesPayload } from "../lib/session";
import { listEveryMs, useChanges } from "../lib/stream";
import { Table } from "../lib/table";
import { AsCode, Button, Empty, Head, Loaded } from "../lib/ui";
import { Views } from "../lib/views";
import { listAsCode } from "./runs/as-code";
import { Bulk } from "./runs/bulk";
import { runColumns } from "./runs/columns";
import { OTHERS, runFields, runFilter } from "./runs/fields";
import { FirstRun } from "../lib/first-run";
import { type Rows, readRows, useHeld } from "./runs/rows";
import { runsSentence } from "./runs/sentence";

const PAGE = 100;
const MOST = 500;
const VIEWS: [string, Query][] = [
  ["All", {}],
  ["Active", { status: "pending,running" }],
  ["Failed", { status: "error,timeout" }],
  ["Waits for a person", { cause: "paused" }],
  ["Cancelled", { cause: "user_cancel,rolled_back" }],
];

export default function Runs() {
  const { query } = place.value;
  const given = useFilter(runFields([]), OTHERS);
  const refused = given.errors.length > 0;
  const { before } = query;
  const payload = query["payload"] === "show" || Boolean(given.query["text"]);
  const still = payload && isRecorded();
  const [pages, setPages] = useState(1);
  const [selected, select] = useState<ReadonlySet<string>>(new Set());
  const wanted = { before, rows: pages * PAGE, requests: pages, payload };
  const live = useLive<Rows>(
    refused ? undefined : (stop) => readRows({ ...wanted, filter: runFilter(given.query, Date.now()) }, stop),
    [given, before, payload],
    still ? null : listEveryMs.value,
  );
  useChanges(() => true, () => !still && !before && live.reload());
  const now = useNow(1_000);
  const { shown, held, release } = useHeld(live.data?.runs ?? []);
  const filtered = Object.keys(given.query).length > 0;
  const owners = (me.value?.operator ?? false) && shown.some((run) => run.owner !== "");
  const acts = permits("threads.cancel") || permits("threads.retry");
  const more = () => {
    if (pages * PAGE < MOST) setPages(pages + 1);
    else if (live.data?.next) setQuery({ before: live.data.next });
    live.reload();
  };
  const sentence = live.data && runsSentence(live.data.runs, { filtered, more: live.data.next !== null, older: Boolean(before) }, now);
  return (
    <>
      <Head title="Runs" sentence={sentence} live={refused ? undefined : live}>
        {isRecorded() && seesPayload.value && (
          <label class="check" title="Each read is recorded in the audit, so the list is then not live.">
            <input
              type="checkbox"
              checked={payload}
              onChange={(event) => setQuery({ payload: event.currentTarget.checked ? "show" : undefined })}
            />
            Show payload
          </label>
        )}
        {!refused && <AsCode {...listAsCode(given.query)} />}
      </Head>
      <FilterBar label="Filter of runs" fields={runFields(live.data?.runs ?? [])} given={given} example={'status:error age:<1h text:"rate limit"'}>
        <Views page="runs" common={VIEWS} query={given.query} />
        <Loaded live={live}>
          {(data) => (
            <>
              {before && (
                <p>
                  Older runs. <a href={link(["runs"], { ...query, before: undefined })}>To the newest</a>
                </p>
              )}
              {!data.runs.length && data.next === null && (filtered ? <Empty>No run matches.</Empty> : <FirstRun />)}
              {data.runs.length > 0 && (
                <Table
                  label="Runs"
                  rows={[...shown]}
                  id={(run) => run.run_id}
                  columns={runColumns(shown, now, { owners })}
                  open={(run) => link(["run", run.run_id])}
                  selected={acts ? selected : undefined}
                  onSelect={acts ? select : undefined}
                />
              )}
              {data.next !== null && (
                <p class="end-of-list">
                  <Button onClick={more}>{data.runs.length ? "More" : `Search older runs than the newest ${number(pages * 10_000)}`}</Button>
                </p>
              )}
            </>
          )}
        </Loaded>
        {held > 0 && (
          <button type="button" class="held" onClick={release}>
            ↑ {number(held)} new
          </button>
        )}
        <Bulk selected={selected} query={given.query} onClear={() => select(new Set())} onDone={() => (select(new Set()), live.reload())} />
      </FilterBar>
    </>
  );
}
