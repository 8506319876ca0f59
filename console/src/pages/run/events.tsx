/** Everything that the run has streamed: a list of any length, by channel, and one event whole. */
import { useMemo, useState } from "preact/hooks";
import { number, plural } from "../../lib/format";
import { Json } from "../../lib/json";
import { visibleText } from "../../lib/plain";
import { place, setQuery } from "../../lib/route";
import type { Item } from "../../lib/stream";
import { Copy, Empty, Hidden } from "../../lib/ui";
import { Virtual } from "../../lib/virtual";
import type { RunLog } from "./log";

const ROW = 26;

export function EventsTab({ log, active }: { log: RunLog; active: boolean }) {
  const version = log.version.value;
  const moment = log.moment.value;
  const wanted = place.value.query["channels"] ?? "";
  const channels = useMemo(() => new Set(wanted.split(",").filter(Boolean)), [wanted]);
  const indexes = useMemo(() => log.of(channels), [log, channels, version]);
  const [opened, setOpened] = useState<number>();
  const count = indexes ? indexes.length : log.count;
  if (!log.count) return <Empty>{active ? "No event yet." : "There are no events: the run streamed none, or they were removed."}</Empty>;
  const indexOf = (at: number) => (indexes ? indexes[at]! : at);
  const chosen = opened ?? (moment === null ? undefined : Math.max(0, moment - 1));
  return (
    <>
      {log.gap.value && <p class="banner">Retention has removed events at the beginning.</p>}
      <Channels log={log} chosen={channels} count={count} />
      <div class="events">
        <Virtual
          label="Events"
          count={count}
          height={ROW}
          reveal={moment === null ? undefined : rowOf(indexes, moment - 1)}
          row={(at) => {
            const index = indexOf(at);
            return <Row log={log} index={index} chosen={index === chosen} beyond={moment !== null && index >= moment} open={setOpened} />;
          }}
        />
        <Opened item={chosen === undefined ? undefined : log.at(chosen)} />
      </div>
    </>
  );
}

/** Return the row of the event with *index*, or of the last one before it. */
function rowOf(indexes: Uint32Array | null, index: number): number {
  if (!indexes) return index;
  let low = 0;
  let high = indexes.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (indexes[middle]! <= index) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1);
}

function Channels({ log, chosen, count }: { log: RunLog; chosen: ReadonlySet<string>; count: number }) {
  const toggle = (name: string) => {
    const next = new Set(chosen);
    if (!next.delete(name)) next.add(name);
    setQuery({ channels: [...next].join(",") }, { replace: true });
  };
  return (
    <div class="channels" role="group" aria-label="Channels">
      {log.channels.map((name) => (
        <button key={name} type="button" class="pill" aria-pressed={chosen.has(name)} onClick={() => toggle(name)}>
          <bdi>{name}</bdi>
        </button>
      ))}
      <span class="quiet">
        {chosen.size ? `${number(count)} of ` : ""}
        {plural(log.count, "event")}
      </span>
    </div>
  );
}

interface RowProps {
  log: RunLog;
  index: number;
  chosen: boolean;
  beyond: boolean;
  open: (index: number) => void;
}

function Row({ log, index, chosen, beyond, open }: RowProps) {
  const item = log.at(index);
  return (
    <button type="button" class={`event${chosen ? " event-chosen" : ""}${beyond ? " event-beyond" : ""}`} onClick={() => open(index)}>
      <span class="event-number">{item?.number ?? "…"}</span>
      <bdi class="event-name">{item ? visibleText(item.event) : log.channelAt(index)}</bdi>
      <span class="event-data">{item ? brief(item) : "reading…"}</span>
    </button>
  );
}

const SHOWN = 240;
const briefs = new WeakMap<Item, string>();

function brief(item: Item): string {
  const known = briefs.get(item);
  if (known !== undefined) return known;
  const text = item.data === undefined || item.data === null ? "hidden" : visibleText(JSON.stringify(item.data).slice(0, SHOWN));
  briefs.set(item, text);
  return text;
}

function Opened({ item }: { item: Item | undefined }) {
  if (!item) return <div class="event-open quiet">Choose an event to see it whole.</div>;
  const hidden = item.data === undefined || item.data === null;
  return (
    <div class="event-open" role="region" aria-label="Event" tabIndex={0}>
      <h3>
        {item.number} · <bdi>{visibleText(item.event)}</bdi> <Copy text={hidden ? item.id : JSON.stringify(item.data)} what="the event" />
      </h3>
      {hidden ? <Hidden /> : <Json value={item.data} open={6} />}
    </div>
  );
}
