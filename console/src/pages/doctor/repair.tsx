import { useState } from "preact/hooks";
import { post } from "../../lib/api";
import { plural } from "../../lib/format";
import { useLive } from "../../lib/live";
import { AsCode, Button, Dialog, Loaded } from "../../lib/ui";
import { type Finding, Subject } from "./findings";

interface Repaired {
  id: string;
  code: string | null;
  subject: Finding["subject"];
  repair: string | null;
  outcome: "would_repair" | "repaired" | "gone" | "by_hand" | "unknown";
}

const OUTCOMES: Record<Repaired["outcome"], string> = {
  would_repair: "will be repaired",
  repaired: "● repaired",
  gone: "is not so any more",
  by_hand: "has to be done by hand",
  unknown: "is not known any more: examine again",
};
const ROUTE = "/operator/doctor/repair";
const MOST = 100;

/** Show what a repair would do, and do it when somebody says so. */
export function Repair({ findings, onClose, done }: { findings: Finding[]; onClose: () => void; done: () => Promise<void> }) {
  const ids = findings.slice(0, MOST).map((one) => one.id);
  const preview = useLive((stop) => post<Repaired[]>(ROUTE, { findings: ids, preview: true }, stop), [ids], null);
  const [results, setResults] = useState<Repaired[]>();
  const repair = async () => {
    setResults(await post<Repaired[]>(ROUTE, { findings: ids, preview: false }));
    await done();
  };
  const possible = preview.data?.filter((one) => one.outcome === "would_repair").length ?? 0;
  return (
    <Dialog title={results ? "Repaired" : "Repair?"} onClose={onClose}>
      <Loaded live={preview} rows={2}>
        {(planned) => (
          <ul class="repairs">
            {(results ?? planned).map((one) => (
              <li key={one.id}>
                <b>{one.code}</b> <Subject subject={one.subject} />: {OUTCOMES[one.outcome]}.{" "}
                {one.outcome === "would_repair" && <span class="quiet">{one.repair}</span>}
              </li>
            ))}
          </ul>
        )}
      </Loaded>
      <div class="actions">
        {!results && (
          <Button kind="danger" onClick={repair} disabled={!possible}>
            Repair {possible > 1 && plural(possible, "finding")}
          </Button>
        )}
        <Button onClick={onClose}>Close</Button>
        <AsCode http={`POST ${ROUTE} ${JSON.stringify({ findings: ids, preview: false })}`} cli="runlane doctor --repair" />
      </div>
    </Dialog>
  );
}
