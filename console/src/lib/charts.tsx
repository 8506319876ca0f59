/** Small charts, drawn by hand. Each says in words what it shows, and each column its values on hover. */
import { compact } from "./format";

export interface Series {
  name: string;
  /** A class that gives the colour: `fill-0` to `fill-7`, or `fill-<status>`. */
  fill: string;
  values: number[];
}

interface BarsProps {
  label: string;
  series: Series[];
  /** What each column is about, such as a time. */
  columns: string[];
  height?: number;
  /** The value at the top. */
  most?: number;
  format?: (value: number) => string;
  tall?: boolean;
}

const STEP = 6;

/** Columns of values, one upon the other. */
export function Bars({ label, series, columns, height = 36, most: given, format = compact, tall }: BarsProps) {
  const sums = columns.map((_, at) => series.reduce((sum, one) => sum + (one.values[at] ?? 0), 0));
  const most = given ?? Math.max(...sums, 0);
  const gap = columns.length > 40 ? 1 : 2;
  return (
    <svg
      class={tall ? "chart chart-tall" : "chart"}
      viewBox={`0 0 ${Math.max(columns.length, 1) * STEP} ${height}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={`${label}. ${described(columns, sums, format)}`}
    >
      {columns.map((column, at) => {
        let top = height;
        return (
          <g key={column}>
            <title>{[column, ...series.filter((one) => one.values[at]).map((one) => `${one.name}: ${format(one.values[at]!)}`)].join("\n")}</title>
            <rect class="chart-column" x={at * STEP} y={0} width={STEP} height={height} />
            {series.map((one) => {
              const part = most ? ((one.values[at] ?? 0) / most) * height : 0;
              if (!part) return null;
              top -= part;
              return <rect key={one.name} class={one.fill} x={at * STEP + gap / 2} y={top} width={STEP - gap} height={part} />;
            })}
          </g>
        );
      })}
    </svg>
  );
}

function described(columns: string[], sums: number[], format: (value: number) => string): string {
  const most = Math.max(...sums, 0);
  if (!most) return "Nothing in all of it.";
  return `Most: ${format(most)}, ${columns[sums.indexOf(most)]}. Last: ${format(sums.at(-1) ?? 0)}.`;
}

interface LinesProps {
  label: string;
  series: { name: string; stroke: string; values: (number | null)[] }[];
  columns: string[];
  format: (value: number) => string;
  height?: number;
}

/** Lines over time, with dots where a value stands alone; a missing value is a gap. */
export function Lines({ label, series, columns, format, height = 36 }: LinesProps) {
  const known = series.flatMap((one) => one.values.filter((value) => value !== null));
  const most = Math.max(...known, 0);
  const y = (value: number) => height - 2 - (most ? (value / most) * (height - 4) : 0);
  const words = most ? `Most: ${format(most)}.` : "No values.";
  return (
    <svg
      class="chart"
      viewBox={`0 0 ${columns.length * STEP} ${height}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={`${label}. ${words}`}
    >
      {series.map((one) => (
        <path key={one.name} class={one.stroke} d={pathOf(one.values, y)} vector-effect="non-scaling-stroke" />
      ))}
      {columns.map((column, at) => (
        <rect key={column} class="chart-column" x={at * STEP} y={0} width={STEP} height={height}>
          <title>
            {[column, ...series.map((one) => `${one.name}: ${one.values[at] == null ? "–" : format(one.values[at]!)}`)].join("\n")}
          </title>
        </rect>
      ))}
    </svg>
  );
}

function pathOf(values: (number | null)[], y: (value: number) => number): string {
  return values
    .map((value, at) => {
      if (value === null) return "";
      const joined = at > 0 && values[at - 1] !== null;
      const alone = !joined && (values[at + 1] ?? null) === null;
      const x = at * STEP + STEP / 2;
      return `${joined ? "L" : "M"}${x} ${y(value).toFixed(1)}${alone ? "h.01" : ""}`;
    })
    .join("");
}

/** How much of something is used. */
export function Meter({ label, value, most }: { label: string; value: number; most: number }) {
  const share = most ? Math.min(1, value / most) : 0;
  return (
    <svg class="meter" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" aria-label={`${label}: ${value} of ${most}`}>
      <rect class="meter-ground" width={100} height={6} />
      <rect class={share >= 1 ? "fill-late" : "fill-0"} width={share * 100} height={6} />
    </svg>
  );
}

export function Legend({ items }: { items: { name: string; fill: string; value?: string; to?: string }[] }) {
  return (
    <ul class="legend">
      {items.map((item) => (
        <li key={item.name}>
          <svg class="legend-mark" viewBox="0 0 8 8" aria-hidden="true">
            <rect class={item.fill} width={8} height={8} />
          </svg>
          {item.to ? <a href={item.to}>{item.name}</a> : <bdi>{item.name}</bdi>}
          {item.value && <span class="quiet"> {item.value}</span>}
        </li>
      ))}
    </ul>
  );
}
