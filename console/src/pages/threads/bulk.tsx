/** Deleting many threads, or their old checkpoints. */
import { useState } from "preact/hooks";
import { post } from "../../lib/api";
import { plural } from "../../lib/format";
import { permits } from "../../lib/session";
import { Selection } from "../../lib/selection";
import { AsCode, Button, Chip, Dialog } from "../../lib/ui";

type Strategy = "delete" | "keep_latest";

interface Pruned {
  pruned_count: number;
  busy: string[];
}

const MOST = 1_000;

export function Bulk({ selected, onDone, onClear }: { selected: ReadonlySet<string>; onDone: () => void; onClear: () => void }) {
  const [asks, ask] = useState<Strategy>();
  return (
    <>
      <Selection count={selected.size} one="thread" onClear={onClear}>
        {permits("threads.update") && <Button onClick={() => ask("keep_latest")}>Prune</Button>}
        {permits("threads.delete") && (
          <Button kind="danger" onClick={() => ask("delete")}>
            Delete
          </Button>
        )}
      </Selection>
      {asks && <Prune strategy={asks} ids={[...selected].slice(0, MOST)} onClose={() => ask(undefined)} onDone={() => (ask(undefined), onDone())} />}
    </>
  );
}

const WORDS: Record<Strategy, { title: (threads: string) => string; consequence: string; done: string }> = {
  delete: {
    title: (threads) => `Delete ${threads}?`,
    consequence: "Their messages, state, history, runs and events are deleted. This cannot be undone.",
    done: "deleted",
  },
  keep_latest: {
    title: (threads) => `Delete old checkpoints of ${threads}?`,
    consequence: "The newest states are kept, and the conversations in them. Nobody can fork from earlier checkpoints any more.",
    done: "pruned",
  },
};

function Prune({ strategy, ids, onClose, onDone }: { strategy: Strategy; ids: string[]; onClose: () => void; onDone: () => void }) {
  const [done, setDone] = useState<Pruned>();
  const words = WORDS[strategy];
  const body = { thread_ids: ids, strategy };
  const threads = plural(ids.length, "thread");
  const missing = done && ids.length - done.pruned_count - done.busy.length;
  return (
    <Dialog title={words.title(threads)} onClose={done ? onDone : onClose}>
      {done ? (
        <>
          <p role="status">
            {plural(done.pruned_count, "thread")} {words.done}.
            {done.busy.length > 0 && ` ${done.busy.length} left alone: a run is active on them.`}
            {Boolean(missing) && ` ${missing} not found: they were deleted meanwhile, or are not yours.`}
          </p>
          {done.busy.map((id) => (
            <Chip key={id} to={["thread", id]} id={id} />
          ))}
          <p>
            <Button onClick={onDone}>Close</Button>
          </p>
        </>
      ) : (
        <>
          <p>{words.consequence} Threads on which a run is active are left alone, and named.</p>
          <p class="actions">
            <Button kind="danger" onClick={async () => setDone(await post<Pruned>("/threads/prune", body))}>
              {strategy === "delete" ? `Delete ${threads}` : "Delete old checkpoints"}
            </Button>
            <Button onClick={onClose}>Keep them</Button>
            <AsCode
              http={`POST /threads/prune ${JSON.stringify(body)}`}
              cli={strategy === "delete" ? `runlane threads delete ${ids.join(" ")}` : undefined}
              python={`await client.threads.prune(${JSON.stringify(ids)}, strategy="${strategy}")`}
            />
          </p>
        </>
      )}
    </Dialog>
  );
}
