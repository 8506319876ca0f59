import { Bars, Legend, type Series } from "../../lib/charts";
import type { Total } from "../../lib/operator";
import type { Shown } from "./measures";

const COLOURS = 7;
const DAY_MS = 86_400_000;
const MOST_DAYS = 400;

/** A column for each day, with a part for each of the largest; the rest together. */
export function DayChart({ view, totals }: { view: Shown; totals: Total[] }) {
  const days = daysOf(view);
  const series = seriesOf(view, totals, days);
  const sums = days.map((_, at) => series.reduce((sum, one) => sum + one.values[at]!, 0));
  const largest = Math.max(...sums, 0);
  const most = view.measure.whole ? largest + (largest % 2) : largest; // so that its half is whole too
  return (
    <figure class="usage-chart">
      <div class="axis quiet" aria-hidden="true">
        <span>{most > 0 ? view.measure.short(most) : ""}</span>
        <span>{most > 0 ? view.measure.short(most / 2) : ""}</span>
        <span>0</span>
      </div>
      <Bars tall most={most} height={180} label={`${view.measure.name} by ${view.by} and day`} columns={days} series={series} format={view.measure.short} />
      <div class="days quiet" aria-hidden="true">
        <span>{days[0]}</span>
        <span>{days.at(-1)} (UTC)</span>
      </div>
      {view.by !== "day" && <Legend items={series.map((one) => ({ name: one.name, fill: one.fill }))} />}
    </figure>
  );
}

function daysOf({ since, until }: Shown): string[] {
  const first = Date.parse(`${since}T00:00:00Z`);
  const count = Math.floor((Date.parse(`${until}T00:00:00Z`) - first) / DAY_MS) + 1;
  if (!(count > 0)) return [];
  return Array.from({ length: Math.min(count, MOST_DAYS) }, (_, at) => new Date(first + at * DAY_MS).toISOString().slice(0, 10));
}

function seriesOf({ by, measure }: Shown, totals: Total[], days: string[]): Series[] {
  const values = (total: Total) => days.map((day) => (total.days[day] ? measure.of(total.days[day]) : 0));
  if (by === "day") {
    const byDay = new Map(totals.map((total) => [total.name, measure.of(total)]));
    return [{ name: measure.name, fill: "fill-0", values: days.map((day) => byDay.get(day) ?? 0) }];
  }
  const sorted = [...totals].sort((a, b) => measure.of(b) - measure.of(a));
  const named = sorted.slice(0, COLOURS).map((total, at) => ({ name: total.name || "(none)", fill: fillOf(by, total.name, at), values: values(total) }));
  const rest = sorted.slice(COLOURS).map(values);
  if (!rest.length) return named;
  return [...named, { name: `${rest.length} others`, fill: "fill-7", values: days.map((_, at) => rest.reduce((sum, one) => sum + one[at]!, 0)) }];
}

const fillOf = (by: string, name: string, at: number): string => (by === "status" ? `fill-${name}` : `fill-${at}`);
