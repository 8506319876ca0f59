/** The checkpoints of a thread, the newest first. */
import { useState } from "preact/hooks";
import { get, path, post } from "../../lib/api";
import { nodesOf, shortId } from "../../lib/format";
import { useKept, useLive } from "../../lib/live";
import { go, link } from "../../lib/route";
import { permits } from "../../lib/session";
import { type Column, Table } from "../../lib/table";
import { type ThreadSummary, assistantOf } from "../../lib/threads";
import { Age, AsCode, Button, Copy, Empty, Loaded } from "../../lib/ui";
import { Conversation } from "./conversation";

interface Checkpoint {
  checkpoint_id: string;
  parent_checkpoint_id: string | null;
  created_at: string;
  metadata: { source?: string; step?: number; run_id?: string } | null;
  next: string[];
}

const PAGE = 50;
const SELECT = "checkpoint_id,parent_checkpoint_id,created_at,metadata,next";

export function History({ thread, checkpoint }: { thread: ThreadSummary; checkpoint?: string }) {
  const [limit, setLimit] = useState(PAGE);
  const route = path("/threads/{}/history", thread.thread_id);
  const read = (stop: AbortSignal) => get<Checkpoint[]>(route, { limit: limit + 1, select: SELECT }, stop);
  const live = useKept(useLive(read, [route, thread.state_updated_at, limit], null));
  if (checkpoint) return <At key={checkpoint} thread={thread} checkpoint={checkpoint} />;
  return (
    <Loaded live={live}>
      {(found) =>
        found.length ? (
          <>
            <Table
              label="History"
              rows={found.slice(0, limit)}
              id={(row) => row.checkpoint_id}
              columns={columns(thread.thread_id)}
              open={(row) => at(thread.thread_id, row.checkpoint_id)}
            />
            {found.length > limit && <Button onClick={() => setLimit(limit + PAGE)}>More</Button>}
          </>
        ) : (
          <Empty>No checkpoint yet: nothing has run.</Empty>
        )
      }
    </Loaded>
  );
}

const at = (threadId: string, checkpoint: string) => link(["thread", threadId], { tab: "history", checkpoint });

function columns(threadId: string): Column<Checkpoint>[] {
  return [
    { name: "Step", cell: (row) => row.metadata?.step ?? "" },
    {
      name: "Checkpoint",
      cell: (row) => (
        <span class="chip">
          <a href={at(threadId, row.checkpoint_id)}>{shortId(row.checkpoint_id)}</a>
          <Copy text={row.checkpoint_id} what={row.checkpoint_id} />
        </span>
      ),
    },
    { name: "Made by", cell: (row) => row.metadata?.source ?? "" },
    { name: "Goes on at", cell: (row) => nodesOf(row.next) || "the end" },
    { name: "After", wide: true, cell: (row) => row.parent_checkpoint_id && shortId(row.parent_checkpoint_id) },
    { name: "Written", end: true, cell: (row) => <Age at={row.created_at} /> },
  ];
}

function At({ thread, checkpoint }: { thread: ThreadSummary; checkpoint: string }) {
  const threadId = thread.thread_id;
  const assistant = assistantOf(thread);
  const body = { assistant_id: assistant, input: null, checkpoint_id: checkpoint };
  const goOn = async () => {
    const run = await post<{ run_id: string }>(path("/threads/{}/runs", threadId), body);
    go(["run", run.run_id]);
  };
  return (
    <>
      <p class="actions">
        <a href={link(["thread", threadId], { tab: "history" })}>All checkpoints</a>
        <span>
          The state at checkpoint <code>{checkpoint}</code>
        </span>
        {assistant && permits("threads.create_run") && (
          <>
            <Button onClick={goOn} title="A new run goes on from this checkpoint. What came after it stays in the history.">
              Fork from here
            </Button>
            <AsCode
              http={`POST /threads/${threadId}/runs ${JSON.stringify(body)}`}
              python={`await client.runs.create("${threadId}", "${assistant}", input=None, checkpoint_id="${checkpoint}")`}
            />
          </>
        )}
      </p>
      <Conversation threadId={threadId} version="" checkpoint={checkpoint} />
    </>
  );
}
