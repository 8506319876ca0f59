/**
 * The events of a run as they come: which there are, what they had said by any of them, and the events themselves.
 * Of a long log the oldest ones are forgotten and read again where somebody looks.
 */
import { batch, signal } from "@preact/signals";
import { type Conversation, begin, fold } from "../../lib/chat";
import { ApiError, get, path } from "../../lib/api";
import { type Item, type WireItem, itemOf } from "../../lib/stream";

const PAGE = 500;
/** Bytes of events that are kept. */
const KEPT = 24_000_000;
/** Conversations that are kept to go on from. */
const SNAPSHOTS = 400;
const RETRY_MS = 3_000;

export class RunLog {
  /** Changes with every batch of events. */
  readonly version = signal(0);
  /** How many events there are. */
  count = 0;
  /** Channels: the parts of names before what follows `|` and `/`, in the order in which they came. */
  readonly channels: string[] = [];
  /** What was said by the newest event. */
  readonly newest = signal<Conversation>(begin(null));
  /** How many events are shown, by the scrub bar; `null`: all. */
  readonly moment = signal<number | null>(null);
  /** Events that retention has removed came before these. */
  readonly gap = signal(false);

  #channel = new Uint8Array(1024);
  /** Of each page the number of its first event: those of one kind of run have gaps. */
  #firsts: number[] = [];
  #pages = new Map<number, Item[]>();
  #sizes = new Map<number, number>();
  #bytes = 0;
  #loading = new Set<number>();
  /** What was said by the first `n * #every` events. */
  #snapshots: Conversation[] = [];
  #every = PAGE;
  #last: { count: number; said: Conversation };

  constructor(
    readonly runId: string,
    input: unknown,
  ) {
    this.newest.value = begin(input);
    this.#snapshots.push(this.newest.value);
    this.#last = { count: 0, said: this.newest.value };
  }

  take(items: Item[]): void {
    let said = this.newest.peek();
    for (const item of items) {
      if (item.event === "gap") this.gap.value = true;
      if (!item.number) continue;
      this.#append(item);
      said = fold(said, item);
      if (this.count % this.#every === 0) this.#keep(said);
    }
    this.#forget();
    batch(() => {
      this.newest.value = said;
      this.version.value++;
    });
  }

  /** Return the event with the index *at*; `undefined` if it is not here yet: it is being read then. */
  at(at: number): Item | undefined {
    const page = Math.floor(at / PAGE);
    const found = this.#pages.get(page);
    if (!found) void this.#load(page);
    return found?.[at % PAGE];
  }

  /** Return the channel of the event with the index *at*. */
  channelAt(at: number): string {
    return this.channels[this.#channel[at]!]!;
  }

  /** Return the indexes of the events of *channels*; `null`: those of all. */
  of(channels: ReadonlySet<string>): Uint32Array | null {
    if (!channels.size) return null;
    const wanted = this.channels.map((name) => channels.has(name));
    const found = new Uint32Array(this.count);
    let length = 0;
    for (let at = 0; at < this.count; at++) if (wanted[this.#channel[at]!]) found[length++] = at;
    return found.subarray(0, length);
  }

  /** Return the index of the last event of *channel* among the first *count*; -1 without one. */
  lastOf(channel: string, count: number): number {
    const wanted = this.channels.indexOf(channel);
    return wanted < 0 ? -1 : this.#channel.subarray(0, count).lastIndexOf(wanted);
  }

  /** Return what was said by the first *count* events; by fewer of them while some are read. */
  saidBy(count: number): Conversation {
    if (count >= this.count) return this.newest.peek();
    const snapshot = Math.floor(count / this.#every);
    let from = { count: snapshot * this.#every, said: this.#snapshots[snapshot]! };
    if (this.#last.count <= count && this.#last.count > from.count) from = this.#last;
    let { said } = from;
    let done = from.count;
    for (; done < count; done++) {
      const item = this.at(done);
      if (!item) break;
      said = fold(said, item);
    }
    this.#last = { count: done, said };
    return said;
  }

  #append(item: Item): void {
    if (this.count === this.#channel.length) {
      const larger = new Uint8Array(this.count * 2);
      larger.set(this.#channel);
      this.#channel = larger;
    }
    this.#channel[this.count] = this.#channelOf(item.event);
    const page = Math.floor(this.count / PAGE);
    const items = this.#pages.get(page);
    if (items) items.push(item);
    else {
      this.#pages.set(page, [item]);
      this.#firsts[page] = item.number;
    }
    this.#sizes.set(page, (this.#sizes.get(page) ?? 0) + item.size);
    this.#bytes += item.size;
    this.count++;
  }

  #channelOf(event: string): number {
    const name = event.split(/[|/]/, 1)[0]!;
    const known = this.channels.indexOf(name);
    if (known >= 0) return known;
    if (this.channels.length === 255) return 254; // more kinds than any stream has
    return this.channels.push(name) - 1;
  }

  #keep(said: Conversation): void {
    this.#snapshots.push(said);
    if (this.#snapshots.length <= SNAPSHOTS) return;
    this.#snapshots = this.#snapshots.filter((_, at) => at % 2 === 0);
    this.#every *= 2;
  }

  /** Forget what was here longest, but for the page that grows. */
  #forget(): void {
    for (const page of this.#pages.keys()) {
      if (this.#bytes <= KEPT || page === Math.floor((this.count - 1) / PAGE)) return;
      this.#bytes -= this.#sizes.get(page) ?? 0;
      this.#pages.delete(page);
      this.#sizes.delete(page);
    }
  }

  async #load(page: number): Promise<void> {
    const first = page * PAGE;
    if (this.#loading.has(page) || first >= this.count) return;
    this.#loading.add(page);
    try {
      const items = await this.#read(this.#firsts[page]! - 1, Math.min(PAGE, this.count - first));
      const size = items.reduce((sum, item) => sum + item.size, 0);
      this.#pages.set(page, items);
      this.#sizes.set(page, size);
      this.#bytes += size;
      this.#forget();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      await new Promise((done) => setTimeout(done, RETRY_MS)); // the frame says that the server does not answer
    }
    this.#loading.delete(page);
    this.version.value++;
  }

  async #read(after: number, wanted: number): Promise<Item[]> {
    const items: Item[] = [];
    while (items.length < wanted) {
      const query = { after: items.at(-1)?.number ?? after, limit: wanted - items.length };
      const more = await get<WireItem[]>(path("/runs/{}/events", this.runId), query);
      if (!more.length) break; // retention has removed them
      items.push(...more.map((item) => itemOf(item, JSON.stringify(item).length)));
    }
    return items;
  }
}
