/** What the doctor finds wrong with a thread, and its repair. */
import { useState } from "preact/hooks";
import { path, send } from "../../lib/api";
import { plural } from "../../lib/format";
import { Linked } from "../../lib/linked";
import { useLive } from "../../lib/live";
import { withoutPayload } from "../../lib/runs";
import { permits } from "../../lib/session";
import { AsCode, Button, Dialog } from "../../lib/ui";

interface Repaired {
  id: string;
  code: string | null;
  meaning: string | null;
  repair: string | null;
  outcome: "would_repair" | "repaired" | "gone" | "by_hand" | "unknown";
}

const OUTCOMES: Record<Repaired["outcome"], string> = {
  would_repair: "can be repaired",
  repaired: "repaired",
  gone: "not so any more",
  by_hand: "needs a person",
  unknown: "not found any more",
};

/** Shown where something is wrong; the thread is examined once per visit. */
export function Damage({ threadId, reload }: { threadId: string; reload: () => void }) {
  const route = path("/threads/{}/repair", threadId);
  const repair = (preview: boolean, stop?: AbortSignal) =>
    send<Repaired[]>("POST", route, { body: { preview }, headers: withoutPayload(), signal: stop });
  const live = useLive((stop) => repair(true, stop), [route], null);
  const [asks, ask] = useState(false);
  const [done, setDone] = useState<Repaired[]>();
  const findings = done ?? live.data ?? [];
  if (!findings.length) return null;
  const can = findings.filter((one) => one.outcome === "would_repair").length;
  const close = () => {
    ask(false);
    if (!done) return;
    setDone(undefined);
    live.reload();
    reload();
  };
  return (
    <div class="banner banner-error" role="alert">
      <span>
        ▲ This thread is damaged: <Linked text={findings[0]!.meaning ?? findings[0]!.code ?? ""} thread={threadId} />
        {findings.length > 1 && ` And ${plural(findings.length - 1, "more finding")}.`}
      </span>
      <Button onClick={() => ask(true)}>{can && permits("threads.repair") ? "Repair…" : "Findings"}</Button>
      {asks && (
        <Dialog title={done ? "What was repaired" : "Repair this thread?"} onClose={close}>
          <ul class="findings">
            {findings.map((one) => (
              <li key={one.id}>
                <p>
                  <b>{OUTCOMES[one.outcome]}</b> · <code>{one.code}</code>
                </p>
                <p>
                  <Linked text={`${one.meaning ?? ""} ${one.repair ?? ""}`} thread={threadId} />
                </p>
              </li>
            ))}
          </ul>
          <p class="actions">
            {!done && can > 0 && permits("threads.repair") && (
              <Button kind="primary" onClick={async () => setDone(await repair(false))}>
                Make {plural(can, "repair")}
              </Button>
            )}
            <Button onClick={close}>{done || !can ? "Close" : "Leave it"}</Button>
            <AsCode
              http={`POST /threads/${threadId}/repair {"preview": false}`}
              cli={`runlane threads repair ${threadId}`}
              python={`await client.http.post("/threads/${threadId}/repair", json={"preview": False})`}
            />
          </p>
        </Dialog>
      )}
    </div>
  );
}
