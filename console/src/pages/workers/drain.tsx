import { useState } from "preact/hooks";
import { path, post, send } from "../../lib/api";
import { plural } from "../../lib/format";
import type { Worker } from "../../lib/operator";
import { permits } from "../../lib/session";
import { AsCode, Button, Dialog } from "../../lib/ui";

const ROUTE = "/operator/workers/{}/drain";

/** Ask a worker to start no runs, and see how far it is. */
export function Drain({ worker, done }: { worker: Worker; done: () => void }) {
  const [asks, setAsks] = useState(false);
  if (!permits("workers.drain") || !worker.capacity || worker.state === "silent") return null;
  const undo = async () => {
    await send("DELETE", path(ROUTE, worker.worker_id));
    done();
  };
  if (worker.drain_asked_at) return <Button onClick={undo}>Stop draining</Button>;
  if (worker.state === "draining") return <span class="quiet">it stops</span>;
  return (
    <>
      <Button onClick={() => setAsks(true)}>Drain</Button>
      {asks && <Ask worker={worker} onClose={() => setAsks(false)} done={done} />}
    </>
  );
}

function Ask({ worker, onClose, done }: { worker: Worker; onClose: () => void; done: () => void }) {
  const route = path(ROUTE, worker.worker_id);
  const drain = async () => {
    await post(route);
    onClose();
    done();
  };
  return (
    <Dialog title={`Drain ${worker.worker_id}`} onClose={onClose}>
      <p>
        It starts no more runs. {worker.running ? `${plural(worker.running, "run may", "runs may")} end within its drain_grace_s; those that do not are handed back and go on elsewhere.` : "It executes none now."}{" "}
        Other workers take what waits; if there are none, runs wait until one is ready. The process goes on and answers requests.
      </p>
      <div class="actions">
        <Button kind="primary" onClick={drain}>
          Drain
        </Button>
        <Button onClick={onClose}>Leave it</Button>
        <AsCode http={`POST ${route}`} cli={`runlane workers drain ${worker.worker_id}`} />
      </div>
    </Dialog>
  );
}
