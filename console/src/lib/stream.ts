/**
 * One stream of events per tab, over any number of runs, and of what changes in lists. It is closed while the tab is hidden,
 * and goes on where it was. What comes is handed over once per animation frame, and is read no faster than it is taken.
 */
import { batch, computed, effect, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { ApiError, request } from "./api";
import { visible } from "./live";
import { withoutPayload } from "./runs";

/** An event of a run's stream. */
export interface Item {
  /** Its number in the run, from 1 on; 0 of `gap` and `not_found`, which are none of the run's events. */
  number: number;
  id: string;
  event: string;
  /** `undefined` if the reader may not see payload. */
  data: unknown;
  /** About how many bytes it had on the wire. */
  size: number;
}

/** A run that was admitted, started, was handed back or ended. */
export interface Change {
  run_id: string;
  thread_id: string;
  status: string;
  end_reason: string | null;
}

/** Gets what has changed; `null`: so much, or for so long unheard, that all of it may have. */
export type Hear = (changes: Change[] | null) => void;
export type Take = (items: Item[]) => void;

interface Taker {
  take: Take;
  /** The last event that it was given; "-": none. */
  after: string;
}

interface Feed {
  takers: Set<Taker>;
  waiting: Item[];
}

/** Whether changes are told now. */
const hearing = signal(false);
/** After how many milliseconds a list is read again that `useChanges` keeps fresh: what it shows may also change by itself. */
export const listEveryMs = computed(() => (hearing.value ? 15_000 : 2_500));

/** Milliseconds of a frame that are spent on events. */
const FRAME_MS = 8;
/** Events handed over at once. */
const SLICE = 500;
/** Events that wait to be taken; with more of them nothing is read. */
const MANY = 4_000;
const RETRY_MS = 1_500;
/** The server sends something at least each 5 s. */
const QUIET_MS = 20_000;
const MAX_RUNS = 200;

const feeds = new Map<string, Feed>();
const hearers = new Set<Hear>();
/** Those of them that have heard an earlier connection: between two of them they have missed something. */
let acquainted = new Set<Hear>();
let changes: Change[] | null = [];
/** Whether the server tells this user of changes. */
let tells = true;
const isWanted = (): boolean => feeds.size > 0 || (tells && hearers.size > 0);
let connection: AbortController | undefined;
let opening = 0;
let frame = 0;
let drained: (() => void) | undefined;

/**
 * Hand over the events of a run to *take*: all of them, or those after the event *after*. The last one is `end`.
 *
 * Returns: What stops it.
 */
export function follow(runId: string, take: Take, after = "-"): () => void {
  const feed = feeds.get(runId) ?? { takers: new Set(), waiting: [] };
  if (!feeds.has(runId) && feeds.size === MAX_RUNS) throw new Error(`One page follows at most ${MAX_RUNS} runs.`);
  feeds.set(runId, feed);
  const taker = { take, after };
  feed.takers.add(taker);
  reopen();
  return () => {
    feed.takers.delete(taker);
    if (feed.takers.size || feeds.get(runId) !== feed) return;
    feeds.delete(runId);
    reopen();
  };
}

/** Tell *hear* which runs change. Returns: What stops it. */
export function hearChanges(hear: Hear): () => void {
  hearers.add(hear);
  if (hearers.size === 1) reopen();
  return () => {
    hearers.delete(hear);
    if (!hearers.size) reopen();
  };
}

const GATHER_MS = 400;

/** Call *act* soon after something of what *concerns* has changed, if only once for much of it. */
export function useChanges(concerns: (change: Change) => boolean, act: () => void): void {
  const newest = useRef({ concerns, act });
  newest.current = { concerns, act };
  useEffect(() => {
    let timer = 0;
    const stop = hearChanges((all) => {
      if (all && !all.some((one) => newest.current.concerns(one))) return;
      timer ||= setTimeout(() => {
        timer = 0;
        newest.current.act();
      }, GATHER_MS);
    });
    return () => (stop(), clearTimeout(timer));
  }, []);
}

effect(() => {
  visible.value;
  reopen();
});

/** Open the stream anew, for the runs that there are by the end of this task. */
function reopen(): void {
  connection?.abort();
  connection = undefined;
  clearTimeout(opening);
  hearing.value = false;
  if (!visible.peek() || !isWanted()) {
    return;
  }
  opening = setTimeout(() => {
    connection = new AbortController();
    void keepReading(connection.signal);
  });
}

async function keepReading(stop: AbortSignal): Promise<void> {
  while (!stop.aborted && isWanted()) {
    try {
      await read(stop);
    } catch (error) {
      if (stop.aborted) return;
      if (error instanceof ApiError && error.status === 403 && tells) tells = false;
      else if (error instanceof ApiError && !error.passing) return;
    } finally {
      if (!stop.aborted) hearing.value = false;
    }
    if (!stop.aborted && isWanted()) await new Promise((done) => setTimeout(done, RETRY_MS));
  }
}

export interface WireItem {
  run_id: string;
  id?: string;
  event: string;
  data?: unknown;
}

async function read(stop: AbortSignal): Promise<void> {
  for (const feed of feeds.values()) feed.waiting = [];
  const runs = [...feeds].map(([run_id, { takers }]) => ({
    run_id,
    after: [...takers].map((taker) => taker.after).reduce((least, one) => (one < least ? one : least)),
  }));
  const asks = tells && hearers.size > 0;
  const answer = await request("POST", "/watch", { body: { runs, changes: asks }, headers: runs.length ? {} : withoutPayload(), signal: stop });
  hearing.value = asks;
  for (const hear of hearers) if (acquainted.has(hear)) hear(null);
  acquainted = new Set(hearers);
  for await (const { event, data } of messages(answer.body!)) {
    if (event !== "items") continue;
    const items = JSON.parse(data) as WireItem[];
    for (const item of items) put(item, Math.ceil(data.length / items.length));
    while (waiting() > MANY) await new Promise<void>((done) => (drained = done));
    if (stop.aborted) return;
  }
}

function waiting(): number {
  let count = 0;
  for (const feed of feeds.values()) count += feed.waiting.length;
  return count;
}

function put(item: WireItem, size: number): void {
  if (item.event === "changed") changes?.push({ run_id: item.run_id, ...(item.data as Omit<Change, "run_id">) });
  else if (item.event === "changes_missed") changes = null;
  else feeds.get(item.run_id)?.waiting.push(itemOf(item, size));
  frame ||= requestAnimationFrame(hand);
}

/** Return an item as `POST /watch` and `GET /runs/{run_id}/events` have it. */
export function itemOf({ id = "", event, data }: WireItem, size: number): Item {
  return { number: Number(id.slice(id.indexOf("-") + 1)) || 0, id, event, data, size };
}

/** Hand over what waits, for a part of a frame. */
function hand(): void {
  const until = performance.now() + FRAME_MS;
  frame = 0;
  const told = changes;
  changes = [];
  batch(() => {
    if (!told || told.length) for (const hear of hearers) hear(told);
    for (const [runId, feed] of feeds) {
      while (feed.waiting.length && performance.now() < until) give(runId, feed, feed.waiting.splice(0, SLICE));
    }
  });
  const left = waiting();
  if (left) frame = requestAnimationFrame(hand);
  if (left <= MANY / 2) {
    drained?.();
    drained = undefined;
  }
}

function give(runId: string, feed: Feed, items: Item[]): void {
  const last = items.findLast((item) => item.id)?.id;
  for (const taker of feed.takers) {
    const fresh = items.filter((item) => !item.id || item.id > taker.after);
    if (last && last > taker.after) taker.after = last;
    if (fresh.length) taker.take(fresh);
  }
  const final = items.at(-1)?.event;
  if (final === "end" || final === "not_found") feeds.delete(runId);
}

interface Message {
  event: string;
  data: string;
}

/** Read server-sent events. Source: WHATWG HTML, 9.2.6, without what the server never sends. */
export async function* messages(body: ReadableStream<Uint8Array>): AsyncGenerator<Message> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await unlessQuiet(reader.read());
      if (done) return;
      const text = decoder.decode(value, { stream: true });
      rest += text;
      if (!text.includes("\n")) continue; // of a large event, which is looked at once it is whole
      const blocks = rest.split(/\r?\n\r?\n/);
      rest = blocks.pop()!;
      for (const block of blocks) {
        const fields = new Map(block.split(/\r?\n/).map((line): [string, string] => fieldOf(line)));
        if (fields.has("data")) yield { event: fields.get("event") ?? "message", data: fields.get("data")! };
      }
    }
  } finally {
    void reader.cancel().catch(() => {});
  }
}

function fieldOf(line: string): [string, string] {
  const colon = line.indexOf(":");
  return [line.slice(0, colon), line.slice(colon + 2)];
}

/** Give up a connection on which not even a heartbeat comes. */
async function unlessQuiet<T>(reading: Promise<T>): Promise<T> {
  let timer = 0;
  const quiet = new Promise<never>((_, fail) => {
    timer = setTimeout(() => fail(new ApiError(0, "quiet", "The stream is silent; it is opened anew.")), QUIET_MS);
  });
  try {
    return await Promise.race([reading, quiet]);
  } finally {
    clearTimeout(timer);
  }
}
