import { number } from "../../lib/format";
import { Button, Chip } from "../../lib/ui";

export interface Finding {
  id: string;
  code: string;
  subject: Record<string, string | number>;
  meaning: string;
  repair: string;
  repairable: boolean;
}

/** `GET /operator/doctor` */
export interface Diagnosis {
  as_of: string | null;
  examining: boolean;
  complete: boolean;
  checked: Record<string, number>;
  findings: Finding[];
}

const SHOWN = 100;

export function Findings({ findings, repair }: { findings: Finding[]; repair?: (finding: Finding) => void }) {
  return (
    <>
      {findings.slice(0, SHOWN).map((finding) => (
        <article key={finding.id} class="card finding" aria-label={finding.code}>
          <h2>
            <span class="status-error" aria-hidden="true">
              ▲{" "}
            </span>
            {finding.code}
          </h2>
          <p>{finding.meaning}</p>
          <Subject subject={finding.subject} />
          <p>
            <span class="quiet">{finding.repairable ? "The repair:" : "What to do:"}</span> {finding.repair}
          </p>
          {finding.repairable && repair && (
            <div class="actions">
              <Button onClick={() => repair(finding)}>Repair (preview)</Button>
            </div>
          )}
        </article>
      ))}
      {findings.length > SHOWN && <p>{number(findings.length - SHOWN)} more; repair these first.</p>}
    </>
  );
}

const PAGES: Record<string, string> = { run: "run", thread: "thread", assistant: "assistants", cron: "crons" };

/** The things that a finding names. */
export function Subject({ subject }: { subject: Finding["subject"] }) {
  return (
    <span class="chips">
      {Object.entries(subject).map(([name, value]) => (
        <span key={name}>
          <span class="quiet">{name.replace(/_id$/, "")} </span>
          {PAGES[name] ? <Chip to={[PAGES[name], String(value)]} id={String(value)} /> : <bdi>{value}</bdi>}
        </span>
      ))}
    </span>
  );
}
