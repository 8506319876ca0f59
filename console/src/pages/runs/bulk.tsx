/** Acting on many runs: those that are selected, or all that match the filter. */
import { useState } from "preact/hooks";
import type { Query } from "../../lib/route";
import { Selection } from "../../lib/selection";
import { permits } from "../../lib/session";
import { Button } from "../../lib/ui";
import { type Action, type Target, ActionDialog } from "./action-dialog";
import { runFilter } from "./fields";

const MOST_IDS = 1_000;

interface BulkProps {
  selected: ReadonlySet<string>;
  query: Query;
  onClear: () => void;
  onDone: () => void;
}

export function Bulk({ selected, query, onClear, onDone }: BulkProps) {
  const [all, setAll] = useState(false);
  const [asks, ask] = useState<{ action: Action; target: Target }>();
  const filtered = Object.keys(query).length > 0;
  const open = (action: Action) => {
    const ids = [...selected].slice(0, MOST_IDS);
    const filter = all && filtered ? runFilter(query, Date.now()) : { run_ids: ids };
    ask({ action, target: { filter, query: all && filtered ? query : undefined } });
  };
  return (
    <>
      <Selection count={selected.size} one="run" onClear={() => (setAll(false), onClear())}>
        {filtered && (
          <label class="check">
            <input type="checkbox" checked={all} onChange={(event) => setAll(event.currentTarget.checked)} />
            all that match the filter
          </label>
        )}
        {permits("threads.cancel") && (
          <>
            <Button onClick={() => open("cancel")}>Cancel</Button>
            <Button onClick={() => open("rollback")}>Roll back</Button>
          </>
        )}
        {permits("threads.retry") && <Button onClick={() => open("retry")}>Retry</Button>}
      </Selection>
      {asks && (
        <ActionDialog
          {...asks}
          onClose={(acted) => {
            ask(undefined);
            setAll(false);
            if (acted) onDone();
          }}
        />
      )}
    </>
  );
}
