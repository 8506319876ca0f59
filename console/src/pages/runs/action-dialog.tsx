/** The dialog of an action on many runs: what it would do, the action page by page, and what became of each run. */
import { useRef, useState } from "preact/hooks";
import { post } from "../../lib/api";
import { python } from "../../lib/code";
import { number, plural } from "../../lib/format";
import { useLive } from "../../lib/live";
import type { Query } from "../../lib/route";
import { AsCode, Button, Dialog, Loaded } from "../../lib/ui";
import { Outcomes, type RunResult } from "./outcomes";

export type Action = "cancel" | "rollback" | "retry";

export interface Target {
  filter: Record<string, unknown>;
  /** The words of the filter, if it is one and not a list of ids. */
  query?: Query;
}

interface Preview {
  matched: number;
  acted: number;
  bound: string;
  sentence: string;
}

interface ActionPage {
  done: number;
  refused: number;
  not_found: number;
  results: RunResult[];
  next: string | null;
}

const VERBS: Record<Action, { ask: string; act: string; done: string }> = {
  cancel: { ask: "Cancel runs?", act: "Cancel", done: "cancelled" },
  rollback: { ask: "Roll back runs?", act: "Roll back", done: "rolled back" },
  retry: { ask: "Retry runs?", act: "Retry", done: "retried" },
};
const EXPLAINED: Record<Action, string> = {
  cancel: "What the runs did so far is kept; a running one stops at once.",
  rollback: "The threads become what they were before these runs.",
  retry: "Each is asked again by a new run on its thread, which goes on where the old one stopped if it can.",
};

interface ActionDialogProps {
  action: Action;
  target: Target;
  onClose: (acted: boolean) => void;
}

export function ActionDialog({ action, target, onClose }: ActionDialogProps) {
  const verbs = VERBS[action];
  const live = useLive((stop) => post<Preview>("/runs/bulk/preview", { action, filter: target.filter }, stop), [action], null);
  const [reason, setReason] = useState("");
  const [pages, setPages] = useState<ActionPage[]>([]);
  const [running, setRunning] = useState(false);
  const stopped = useRef(false);
  const last = pages.at(-1);
  const finished = last !== undefined && last.next === null;
  const act = async (preview: Preview) => {
    stopped.current = false;
    setRunning(true);
    let all = pages;
    try {
      while (!stopped.current && (!all.length || all.at(-1)!.next !== null)) {
        const body = { action, filter: target.filter, bound: preview.bound, after: all.at(-1)?.next ?? undefined, reason: reason || undefined };
        all = [...all, await post<ActionPage>("/runs/bulk", body)];
        setPages(all);
      }
    } finally {
      setRunning(false);
    }
  };
  // While it acts, it stops, and stays to say how far it came.
  const close = () => {
    stopped.current = true;
    if (!running) onClose(pages.length > 0);
  };
  return (
    <Dialog title={verbs.ask} onClose={close} busy={running}>
      <Loaded live={live} rows={2}>
        {(preview) => (
          <>
            <p role="status">
              {preview.sentence} {!pages.length && EXPLAINED[action]}
            </p>
            {!pages.length && preview.acted > 0 && action !== "retry" && (
              <label>
                Reason, for the audit
                <input type="text" maxLength={512} value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
              </label>
            )}
            {pages.length > 0 && <Progress pages={pages} of={preview.matched} done={verbs.done} finished={finished} />}
            <div class="actions">
              {!finished && preview.acted > 0 && (
                <Button kind={action === "retry" ? "primary" : "danger"} onClick={() => act(preview)}>
                  {pages.length ? "Go on" : `${verbs.act} ${plural(preview.acted, "run")}`}
                </Button>
              )}
              {running ? (
                <Button onClick={() => (stopped.current = true)}>Stop after this page</Button>
              ) : (
                <Button onClick={close}>{pages.length || !preview.acted ? "Close" : "Leave them"}</Button>
              )}
              {!pages.length && <AsCode {...asCode(action, target, preview.bound)} />}
            </div>
          </>
        )}
      </Loaded>
    </Dialog>
  );
}

function Progress({ pages, of, done, finished }: { pages: ActionPage[]; of: number; done: string; finished: boolean }) {
  const sum = (count: (page: ActionPage) => number) => pages.reduce((total, page) => total + count(page), 0);
  const results = pages.flatMap((page) => page.results);
  const parts = [
    `${number(sum((page) => page.done))} ${done}`,
    sum((page) => page.refused) && `${number(sum((page) => page.refused))} refused`,
    sum((page) => page.not_found) && `${number(sum((page) => page.not_found))} not found`,
  ].filter(Boolean);
  return (
    <>
      {!finished && <progress max={of} value={results.length} aria-label="Runs looked at" />}
      <p role="status">
        {finished ? "" : "So far: "}
        {parts.join(", ")}.
      </p>
      <Outcomes results={results} />
    </>
  );
}

function asCode(action: Action, { filter, query }: Target, bound: string): { http: string; cli?: string; python: string } {
  const body = { action, filter, bound };
  const ids = query ? [] : (filter["run_ids"] as string[]);
  const command = action === "retry" ? "retry" : "cancel";
  const rollback = action === "rollback" ? " --action rollback" : "";
  return {
    http: `POST /runs/bulk ${JSON.stringify(body)}`,
    cli: ids.length === 1 ? `runlane runs ${command} ${ids[0]}${rollback}` : undefined,
    python: `await client.http.post("/runs/bulk", json=${python(body)})`,
  };
}
