import { useState } from "preact/hooks";
import { path, send } from "../../lib/api";
import { go } from "../../lib/route";
import { permits } from "../../lib/session";
import { AsCode, Button, Chip, Dialog } from "../../lib/ui";
import { type Cron, ROUTE } from "./parts";

const RUN = `${ROUTE}/run`;

/** Starts the run of a cron now. A key made when the dialog opens lets a lost answer be asked for again. */
export function RunNow({ cron }: { cron: Cron }) {
  const [key, setKey] = useState<string>();
  if (!permits("crons.run")) return null;
  return (
    <>
      <Button onClick={() => setKey(newKey())}>Run now</Button>
      {key && (
        <Dialog title="Run this cron now?" onClose={() => setKey(undefined)}>
          <p>
            It starts the run that its next time would start: of <Chip to={["assistants", cron.assistant_id]} id={cron.assistant_id} />
            {cron.thread_id ? (
              <>
                , on <Chip to={["thread", cron.thread_id]} id={cron.thread_id} />
              </>
            ) : (
              ", on a new thread"
            )}
            {cron.user_id && `, for ${cron.user_id}`}. Its next times stay as they are{cron.enabled ? "" : ", and it stays paused"}.
          </p>
          {cron.overlap === "skip" && <p>Its runs do not overlap: while the last one goes on, none is started.</p>}
          <div class="actions">
            <Button kind="primary" onClick={() => run(cron, key)}>
              Run now
            </Button>
            <Button onClick={() => setKey(undefined)}>Not now</Button>
          </div>
          <AsCode http={`POST ${path(RUN, cron.cron_id)}`} cli={`runlane crons run ${cron.cron_id}`} />
        </Dialog>
      )}
    </>
  );
}

async function run(cron: Cron, key: string) {
  const started = await send<{ run_id: string }>("POST", path(RUN, cron.cron_id), { headers: { "Idempotency-Key": key } });
  go(["run", started.run_id]);
}

const newKey = (): string => crypto.getRandomValues(new Uint32Array(4)).join("-");
