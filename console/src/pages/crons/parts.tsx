import { path, send } from "../../lib/api";
import { link } from "../../lib/route";
import { permits } from "../../lib/session";
import { Age, AsCode, Button } from "../../lib/ui";

export interface Cron {
  cron_id: string;
  assistant_id: string;
  thread_id: string | null;
  user_id: string;
  schedule: string;
  timezone: string | null;
  end_time: string | null;
  payload?: Record<string, unknown>;
  metadata: Record<string, unknown>;
  on_run_completed: "delete" | "keep" | null;
  missed: "skip" | "once" | "all";
  overlap: string;
  enabled: boolean;
  next_run_date: string | null;
  /** Its next times, if it is on. */
  next_slots?: string[];
  last_run_date: string | null;
  last_run_id: string | null;
  /** Its newest runs, the newest first, also those that are deleted. */
  recent_run_ids: string[];
  error: { error: string; message: string | null } | null;
  created_at: string;
  updated_at: string;
}

export const ROUTE = "/runs/crons/{}";
const LATE_MS = 60_000;

export const isLate = (cron: Cron): boolean => cron.enabled && cron.next_run_date !== null && Date.parse(cron.next_run_date) < Date.now() - LATE_MS;

export function CronState({ cron }: { cron: Cron }) {
  const [name, shape, word] = stateOf(cron);
  return (
    <span class={`status ${name}`} title={cron.error ? `${cron.error.error}: ${cron.error.message ?? ""}` : undefined}>
      <span class="shape" aria-hidden="true">
        {shape}
      </span>
      {word}
    </span>
  );
}

function stateOf(cron: Cron): [string, string, string] {
  if (!cron.enabled) return ["status-idle", "◆", "paused"];
  if (cron.error) return ["status-error", "▲", "fails"];
  if (isLate(cron)) return ["status-interrupted", "◷", "late"];
  return ["status-success", "●", "on"];
}

export function Zone({ cron }: { cron: Cron }) {
  return <span class="quiet">{cron.timezone ?? "UTC"}</span>;
}

export function LastRun({ cron }: { cron: Cron }) {
  if (!cron.last_run_date) return cron.last_run_id ? <a href={link(["run", cron.last_run_id])}>by hand</a> : <>never</>;
  return cron.last_run_id ? (
    <a href={link(["run", cron.last_run_id])}>
      <Age at={cron.last_run_date} />
    </a>
  ) : (
    <Age at={cron.last_run_date} />
  );
}

interface ActionProps {
  cron: Cron;
  done: () => void;
  code?: boolean;
}

export function Pause({ cron, done, code = false }: ActionProps) {
  const route = path(ROUTE, cron.cron_id);
  const turn = async () => {
    await send("PATCH", route, { body: { enabled: !cron.enabled } });
    done();
  };
  if (!permits("crons.pause")) return null;
  const command = cron.enabled ? "pause" : "resume";
  const value = cron.enabled ? "False" : "True";
  return (
    <>
      <Button onClick={turn}>{cron.enabled ? "Pause" : "Resume"}</Button>
      {code && (
        <AsCode
          http={`PATCH ${route} {"enabled": ${!cron.enabled}}`}
          cli={`runlane crons ${command} ${cron.cron_id}`}
          python={`await client.crons.update("${cron.cron_id}", enabled=${value})`}
        />
      )}
    </>
  );
}
