/** Filters with a name: those that everybody needs, and those that were saved on the server. */
import { useState } from "preact/hooks";
import { get, path, send } from "./api";
import { useLive } from "./live";
import { type Query, link } from "./route";
import { me } from "./session";
import { Button, Dialog } from "./ui";

interface View {
  page: string;
  name: string;
  query: string;
  shared: boolean;
  owner: string;
  revision: number;
}

interface ViewsProps {
  page: string;
  common: readonly (readonly [string, Query])[];
  query: Query;
}

const EVERY_MS = 30_000;

/** Return *query* as one text for each, whatever the order of its names. */
const textOf = (query: Query) => new URLSearchParams(Object.entries(query).sort()).toString();

export function Views({ page, common, query }: ViewsProps) {
  const live = useLive((stop) => get<View[]>("/views", { page }, stop), [page], EVERY_MS);
  const [asks, ask] = useState<View | "new">();
  const saved = live.data ?? [];
  const here = textOf(query);
  const current = saved.find((view) => textOf(parsed(view)) === here);
  const isCommon = common.some(([, one]) => textOf(one) === here);
  const done = () => {
    ask(undefined);
    live.reload();
  };
  return (
    <nav class="views" aria-label="Views">
      {common.map(([name, one]) => (
        <a key={name} href={link([page], one)} aria-current={textOf(one) === here ? "true" : undefined}>
          {name}
        </a>
      ))}
      {saved.map((view) => (
        <a
          key={`${view.owner} ${view.name}`}
          href={link([page], parsed(view))}
          aria-current={view === current ? "true" : undefined}
          title={view.shared ? `Shared by ${view.owner || "everybody"}` : "Your view"}
        >
          <bdi>{view.name}</bdi>
        </a>
      ))}
      {current && isMine(current) && (
        <button type="button" class="more" onClick={() => ask(current)}>
          Delete view
        </button>
      )}
      {!current && !isCommon && (
        <button type="button" class="more" onClick={() => ask("new")}>
          Save view
        </button>
      )}
      {asks === "new" && <Save page={page} query={here} taken={saved} onClose={() => ask(undefined)} onDone={done} />}
      {asks && asks !== "new" && <Delete view={asks} onClose={() => ask(undefined)} onDone={done} />}
    </nav>
  );
}

const isMine = (view: View): boolean => view.owner === (me.value?.identity ?? "");
const parsed = (view: View): Query => Object.fromEntries(new URLSearchParams(view.query));

interface SaveProps {
  page: string;
  query: string;
  taken: readonly View[];
  onClose: () => void;
  onDone: () => void;
}

function Save({ page, query, taken, onClose, onDone }: SaveProps) {
  const [name, setName] = useState("");
  const [shared, setShared] = useState(false);
  const before = taken.find((view) => isMine(view) && view.name === name.trim());
  const save = async () => {
    await send("PUT", path("/views/{}/{}", page, name.trim()), { body: { query, shared, revision: before?.revision ?? 0 } });
    onDone();
  };
  return (
    <Dialog title="Save this view" onClose={onClose}>
      <label>
        Name
        <input type="text" maxLength={128} autoFocus value={name} onInput={(event) => setName(event.currentTarget.value)} />
      </label>
      {me.value?.operator && me.value.identity && (
        <label class="check">
          <input type="checkbox" checked={shared} onChange={(event) => setShared(event.currentTarget.checked)} />
          Show it to all operators
        </label>
      )}
      {before && <p>There is a view “{before.name}”. Saving replaces it.</p>}
      <p class="actions">
        <Button kind="primary" disabled={!name.trim()} onClick={save}>
          {before ? "Replace" : "Save"}
        </Button>
        <Button onClick={onClose}>Cancel</Button>
      </p>
    </Dialog>
  );
}

function Delete({ view, onClose, onDone }: { view: View; onClose: () => void; onDone: () => void }) {
  const remove = async () => {
    await send("DELETE", path("/views/{}/{}", view.page, view.name));
    onDone();
  };
  return (
    <Dialog title={`Delete the view “${view.name}”?`} onClose={onClose}>
      <p>{view.shared ? "It is gone for all operators." : "Only you see it."} No run is touched.</p>
      <p class="actions">
        <Button kind="danger" onClick={remove}>
          Delete
        </Button>
        <Button onClick={onClose}>Keep it</Button>
      </p>
    </Dialog>
  );
}
