/** What is wrong with the ledger, and its repair. */
import { useState } from "preact/hooks";
import { get, post } from "../lib/api";
import { number, plural } from "../lib/format";
import { useLive } from "../lib/live";
import { permits } from "../lib/session";
import { Age, AsCode, Button, Facts, Head, Loaded } from "../lib/ui";
import { type Diagnosis, type Finding, Findings } from "./doctor/findings";
import { Repair } from "./doctor/repair";

const EVERY_MS = 3_000;

export default function Doctor() {
  const live = useLive((stop) => get<Diagnosis>("/operator/doctor", {}, stop), [], EVERY_MS);
  const [asked, setAsked] = useState<Finding[]>();
  const examine = async () => {
    await post("/operator/doctor");
    live.reload();
  };
  const repairable = live.data?.findings.filter((one) => one.repairable) ?? [];
  return (
    <>
      <Head title="Doctor" live={live} sentence={live.data && sentence(live.data)}>
        {permits("doctor.repair") && (
          <>
            {repairable.length > 1 && <Button onClick={() => setAsked(repairable)}>Repair all (preview)</Button>}
            <Button onClick={examine} disabled={live.data?.examining}>
              {live.data?.examining ? "Examining…" : "Examine now"}
            </Button>
            <AsCode http="POST /operator/doctor" cli="runlane doctor" />
          </>
        )}
      </Head>
      <Loaded live={live}>
        {(diagnosis) => (
          <>
            {diagnosis.findings.length > 0 && (
              <Findings findings={diagnosis.findings} repair={permits("doctor.repair") ? (finding) => setAsked([finding]) : undefined} />
            )}
            {diagnosis.as_of && (
              <section class="section counts" aria-labelledby="examined">
                <div class="section-head">
                  <h2 id="examined">
                    Examined <Age at={diagnosis.as_of} />
                  </h2>
                </div>
                <Facts facts={Object.entries(diagnosis.checked).map(([kind, count]) => [kind[0]!.toUpperCase() + kind.slice(1), number(count)])} />
              </section>
            )}
          </>
        )}
      </Loaded>
      {asked && <Repair findings={asked} onClose={() => setAsked(undefined)} done={examine} />}
    </>
  );
}

function sentence({ as_of: asOf, findings, complete, examining }: Diagnosis): string {
  if (!asOf) return examining ? "The first examination goes on." : "Nothing was examined yet.";
  const part = complete ? "" : " It did not see everything: “runlane doctor” sees the rest.";
  if (!findings.length) return `Nothing is wrong with the database.${part}`;
  const repairable = findings.filter((one) => one.repairable).length;
  const rest = repairable === findings.length ? "all can be repaired here" : `${repairable} can be repaired here`;
  return `${plural(findings.length, "finding")}; ${findings.length === 1 && repairable ? "it can be repaired here" : rest}.${part}`;
}
