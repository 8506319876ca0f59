/** Numbers and times as text. */
import { signal } from "@preact/signals";

/** Whether times are shown in UTC and not in the viewer's zone. */
export const utc = signal(localStorage.getItem("runlane.utc") === "true");

const UNITS: [number, string][] = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "min"],
];

/** Return a length of time in words: `0.34 s`, `12 s`, `4 min`, `2 h 5 min`, `3 d`. */
export function duration(seconds: number): string {
  if (seconds < 0) return `−${duration(-seconds)}`;
  if (seconds < 0.001) return "0 s";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  for (const [index, [size, name]] of UNITS.entries()) {
    if (whole < size) continue;
    const rest = UNITS[index + 1];
    const more = rest ? Math.floor((whole % size) / rest[0]) : 0;
    const large = Math.floor(whole / size);
    return more && large < 10 ? `${large} ${name} ${more} ${rest![1]}` : `${large} ${name}`;
  }
  return `${whole} s`;
}

/** Return seconds between two instants; an open end is *now*. */
export function between(from: string, to: string | null | undefined, now = Date.now()): number {
  return Math.max(0, ((to ? Date.parse(to) : now) - Date.parse(from)) / 1000);
}

/** Return how long ago an instant was, or when it will be. */
export function age(at: string, now = Date.now()): string {
  const seconds = (now - Date.parse(at)) / 1000;
  if (Math.abs(seconds) < 1) return "just now";
  const length = Math.abs(seconds) < 60 ? `${Math.floor(Math.abs(seconds))} s` : duration(Math.abs(seconds));
  return seconds < 0 ? `in ${length}` : `${length} ago`;
}

/** Return an instant in the viewer's zone or in UTC, to the second. */
export function moment(at: string | number): string {
  const zone = utc.value ? "UTC" : undefined;
  const shown = new Intl.DateTimeFormat(undefined, {
    dateStyle: "medium",
    timeStyle: "medium",
    timeZone: zone,
    hourCycle: "h23",
  }).format(new Date(at));
  return zone ? `${shown} UTC` : shown;
}

/** Return the time of day of an instant. */
export function clock(at: string | number): string {
  return new Intl.DateTimeFormat(undefined, {
    timeStyle: "medium",
    timeZone: utc.value ? "UTC" : undefined,
    hourCycle: "h23",
  }).format(new Date(at));
}

const NUMBER = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const number = (value: number): string => NUMBER.format(value);
/** Return a number in few characters: `1.2M`. */
export const compact = (value: number): string => (Math.abs(value) < 10_000 ? NUMBER.format(value) : SHORT.format(value));

export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  let rest = value;
  while (rest >= 1000 && at < units.length - 1) (rest /= 1000), at++;
  return `${at && rest < 10 ? rest.toFixed(1) : Math.round(rest)} ${units[at]}`;
}

/** Return a cost, in the currency of the server's file of prices, with the digits that matter. */
export function cost(amount: number): string {
  if (amount >= 1) return NUMBER.format(Number(amount.toFixed(amount >= 100 ? 0 : 2)));
  return new Intl.NumberFormat("en", { maximumSignificantDigits: 2 }).format(amount);
}

export const plural = (count: number, one: string, many = `${one}s`): string => `${number(count)} ${count === 1 ? one : many}`;
/** Return what of an id tells it from others at a glance: ids of runs begin with the time, which many share. */
export const shortId = (id: string): string => (id.length > 12 ? `…${id.slice(-8)}` : id);

/** Nodes of a graph, as it is drawn: LangGraph calls the first one `__start__`. */
export const nodesOf = (names: string[]): string => names.map((name) => (name === "__start__" ? "start" : name)).join(", ");
