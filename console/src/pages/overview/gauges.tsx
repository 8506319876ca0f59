/** What happens now, and in each of the last 60 minutes. */
import type { ComponentChildren } from "preact";
import { Bars, Lines, Meter, type Series } from "../../lib/charts";
import { clock, compact, duration, number, plural } from "../../lib/format";
import { MOST, type Minute, type Overview } from "../../lib/operator";

const STATUSES = ["success", "interrupted", "timeout", "error"];

export function Gauges({ overview }: { overview: Overview }) {
  const { minutes } = overview;
  const columns = minutes.map((minute) => clock(minute.at).slice(0, 5));
  const last = minutes.at(-2); // the current one has only begun
  return (
    <section class="gauges" aria-label="Now, and the last 60 minutes">
      <Gauge title="Running" value={number(overview.running)} unit={`of ${plural(overview.slots, "slot")}`} note={ofWorkers(overview)}>
        <Meter label="Slots in use" value={overview.running} most={overview.slots} />
      </Gauge>
      <Gauge title="Waiting" value={capped(overview.waiting)} note={ofWaiting(overview)}>
        <p class="gauge-queue quiet">{ofQueue(overview)}</p>
      </Gauge>
      <Gauge title="Starts" value={compact(sum(minutes, started))} unit="in the hour" note={`${compact(last ? started(last) : 0)} in the last full minute`}>
        <Bars label="Starts of the last 60 minutes" columns={columns} series={[{ name: "started", fill: "fill-0", values: minutes.map(started) }]} />
      </Gauge>
      <Gauge title="Endings" value={compact(sum(minutes, endings))} unit="in the hour" note={`${compact(last ? endings(last) : 0)} in the last full minute`}>
        <Bars label="Endings of the last 60 minutes, by status" columns={columns} series={byStatus(minutes)} />
      </Gauge>
      <Gauge
        title="Run time, median"
        value={overview.p50_s === null ? "–" : duration(overview.p50_s)}
        note={overview.p95_s === null ? "no run ended in the hour" : `95 % within ${duration(overview.p95_s)}`}
      >
        <Lines
          label="Run times of the last 60 minutes, estimates within 9 %"
          columns={columns}
          format={duration}
          series={[
            { name: "p50", stroke: "line-0", values: minutes.map((one) => one.p50_s) },
            { name: "p95", stroke: "line-1", values: minutes.map((one) => one.p95_s) },
          ]}
        />
      </Gauge>
      <Gauge title="Tokens" value={compact(sum(minutes, tokens))} unit="in the hour" note={`${compact(last ? tokens(last) : 0)} in the last full minute`}>
        <Bars label="Tokens of the last 60 minutes" columns={columns} series={[{ name: "tokens", fill: "fill-1", values: minutes.map(tokens) }]} />
      </Gauge>
    </section>
  );
}

interface GaugeProps {
  title: string;
  value: string;
  unit?: string;
  note: string;
  children: ComponentChildren;
}

function Gauge({ title, value, unit, note, children }: GaugeProps) {
  return (
    <div class="gauge">
      <h3>{title}</h3>
      <div class="gauge-value">
        {value} {unit && <small>{unit}</small>}
      </div>
      <div class="gauge-note">{note}</div>
      {children}
    </div>
  );
}

function ofWorkers({ workers, draining }: Overview): string {
  if (!workers) return "in this process";
  return `${plural(workers, "worker")}${draining ? `, ${number(draining)} draining` : ""}`;
}

function ofWaiting({ oldest_waiting: oldest }: Overview): string {
  return oldest ? `the oldest for ${duration(oldest.age_s)}` : "no run is due";
}

/** The graphs with the longest queues. */
function ofQueue({ queue }: Overview): string {
  const named = queue.slice(0, 3).map((one) => `${one.graph_id} ${capped(one.runs)}`);
  return queue.length > 3 ? `${named.join(", ")} and ${queue.length - 3} more` : named.join(", ");
}

const capped = (count: number): string => (count >= MOST ? `${number(MOST)}+` : number(count));
const started = (minute: Minute): number => minute.started;
const tokens = (minute: Minute): number => minute.tokens;
const endings = (minute: Minute): number => minute.ended.reduce((all, one) => all + one.runs, 0);
const sum = (minutes: Minute[], of: (minute: Minute) => number): number => minutes.reduce((all, one) => all + of(one), 0);

function byStatus(minutes: Minute[]): Series[] {
  return STATUSES.map((status) => ({
    name: status,
    fill: `fill-${status}`,
    values: minutes.map((minute) => minute.ended.filter((one) => one.status === status).reduce((all, one) => all + one.runs, 0)),
  }));
}
