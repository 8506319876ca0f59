/** What a thread is: its metadata, when it expires, and how much it takes. */
import { get, path } from "../../lib/api";
import { bytes, number } from "../../lib/format";
import { Json } from "../../lib/json";
import { useLive } from "../../lib/live";
import { seesPayload } from "../../lib/session";
import { type ThreadSummary, assistantOf } from "../../lib/threads";
import { Age, Chip, Facts, Hidden, Loaded } from "../../lib/ui";

interface Size {
  count: number;
  bytes: number;
}

interface Storage {
  total_bytes: number;
  checkpoints: Size;
  channel_values: Size;
  pending_writes: Size;
  runs: Size;
  events: Size;
  parts: Size;
}

const KINDS: [keyof Storage, string][] = [
  ["checkpoints", "Checkpoints"],
  ["channel_values", "Values of channels"],
  ["pending_writes", "Pending writes"],
  ["runs", "Runs"],
  ["events", "Events"],
  ["parts", "Shared parts"],
];

export function About({ thread }: { thread: ThreadSummary }) {
  const storage = useLive((stop) => get<Storage>(path("/threads/{}/storage", thread.thread_id), {}, stop), [thread.state_updated_at], null);
  const assistant = assistantOf(thread);
  return (
    <div class="beside">
      <section>
        <h2>Thread</h2>
        <Facts
          facts={[
            ["Id", <Chip to={["thread", thread.thread_id]} id={thread.thread_id} label={thread.thread_id} />],
            ["Assistant", assistant && <Chip to={["assistants", assistant]} id={assistant} label={String(thread.metadata["graph_id"] ?? assistant)} />],
            ["Created", <Age at={thread.created_at} />],
            ["Changed", <Age at={thread.updated_at} />],
            ["State changed", <Age at={thread.state_updated_at} />],
          ]}
        />
        <h3 class="part">Metadata</h3>
        {seesPayload.value ? <Json value={thread.metadata} /> : <Hidden />}
      </section>
      <section>
        <h2>Storage</h2>
        <Loaded live={storage}>
          {(sizes) => (
            <Facts
              facts={[
                ["In all", bytes(sizes.total_bytes)],
                ...KINDS.map(([name, label]): [string, string] => {
                  const size = sizes[name] as Size;
                  return [label, size.count ? `${bytes(size.bytes)} in ${number(size.count)}` : ""];
                }),
              ]}
            />
          )}
        </Loaded>
      </section>
    </div>
  );
}
