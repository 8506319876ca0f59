/** What can be done with a thread. */
import { useState } from "preact/hooks";
import { get, path, post, send } from "../../lib/api";
import { go, link } from "../../lib/route";
import { permits, seesPayload } from "../../lib/session";
import { type ThreadSummary, assistantOf } from "../../lib/threads";
import { AsCode, Button, Dialog } from "../../lib/ui";

interface ActionsProps {
  thread: ThreadSummary;
  active: number;
  reload: () => void;
}

export function Actions({ thread, active, reload }: ActionsProps) {
  const [asks, ask] = useState<"delete" | "prune">();
  const id = thread.thread_id;
  const assistant = assistantOf(thread);
  const copy = async () => {
    const made = await post<ThreadSummary>(path("/threads/{}/copy", id));
    go(["thread", made.thread_id]);
  };
  return (
    <>
      {permits("threads.create_run") && (
        <a class="button primary" href={link(["playground", ...(assistant ? [assistant] : [])], { thread: id })}>
          New run
        </a>
      )}
      {permits("threads.create") && <Button onClick={copy}>Copy</Button>}
      {seesPayload.value && <Button onClick={() => exportThread(thread)}>Export</Button>}
      {permits("threads.update") && (
        <Button disabled={active > 0} title={active ? "A run is active." : undefined} onClick={() => ask("prune")}>
          Prune
        </Button>
      )}
      {permits("threads.delete") && (
        <Button kind="danger" onClick={() => ask("delete")}>
          Delete
        </Button>
      )}
      <AsCode
        http={`GET /threads/${id}/state`}
        cli={`runlane threads show ${id}`}
        python={`await client.threads.get_state("${id}")`}
      />
      {asks === "delete" && <Delete id={id} active={active} onClose={() => ask(undefined)} />}
      {asks === "prune" && <Prune id={id} onClose={() => (ask(undefined), reload())} />}
    </>
  );
}

function Delete({ id, active, onClose }: { id: string; active: number; onClose: () => void }) {
  const act = async () => {
    await send("DELETE", path("/threads/{}", id));
    onClose();
    go(["threads"]);
  };
  return (
    <Dialog title="Delete this thread?" onClose={onClose}>
      <p>
        {active > 0 && `${active === 1 ? "Its active run is" : `Its ${active} active runs are`} cancelled first. `}
        Its messages, state, history, runs and events are deleted. This cannot be undone; export it before, if you may need it.
      </p>
      <p class="actions">
        <Button kind="danger" onClick={act}>
          Delete the thread
        </Button>
        <Button onClick={onClose}>Keep it</Button>
        <AsCode http={`DELETE /threads/${id}`} cli={`runlane threads delete ${id}`} python={`await client.threads.delete("${id}")`} />
      </p>
    </Dialog>
  );
}

function Prune({ id, onClose }: { id: string; onClose: () => void }) {
  const body = { thread_ids: [id], strategy: "keep_latest" };
  const [busy, setBusy] = useState(false);
  const act = async () => {
    const done = await post<{ pruned_count: number; busy: string[] }>("/threads/prune", body);
    if (done.busy.length) setBusy(true);
    else onClose();
  };
  return (
    <Dialog title="Delete old checkpoints?" onClose={onClose}>
      <p>
        The newest state is kept, and the conversation in it. Checkpoints that it does without are deleted: nobody can fork from them,
        or look at them, any more.
      </p>
      {busy && (
        <p class="refusal" role="alert">
          A run is active on this thread. Wait for its end, or cancel it.
        </p>
      )}
      <p class="actions">
        <Button kind="danger" onClick={act}>
          Delete old checkpoints
        </Button>
        <Button onClick={onClose}>Keep them</Button>
        <AsCode
          http={`POST /threads/prune ${JSON.stringify(body)}`}
          python={`await client.threads.prune(["${id}"], strategy="keep_latest")`}
        />
      </p>
    </Dialog>
  );
}

const MOST_STATES = 1_000;

/** Save the thread with its history as a file. */
async function exportThread(thread: ThreadSummary): Promise<void> {
  const route = path("/threads/{}", thread.thread_id);
  const [whole, history] = await Promise.all([get<object>(route), get<unknown[]>(`${route}/history`, { limit: MOST_STATES })]);
  const file = new Blob([JSON.stringify({ ...whole, history }, null, 2)], { type: "application/json" });
  const saved = document.createElement("a");
  saved.href = URL.createObjectURL(file);
  saved.download = `thread-${thread.thread_id}.json`;
  saved.click();
  URL.revokeObjectURL(saved.href);
}
