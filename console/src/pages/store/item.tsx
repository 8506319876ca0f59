/** One item, to be read, changed and deleted; or a new one. */
import { useState } from "preact/hooks";
import { shell } from "../../lib/code";
import { isObject } from "../../lib/filter";
import { Json } from "../../lib/json";
import { JsonEditor } from "../../lib/schema-form";
import { permits } from "../../lib/session";
import { Age, AsCode, Button, Dialog, Facts } from "../../lib/ui";
import { type Item, deleteItem, writeItem } from "./data";

interface ItemDialogProps {
  /** Without it a new one is made, in *namespace*. */
  item?: Item;
  namespace: string[];
  onClose: (changed: boolean) => void;
}

export function ItemDialog({ item, namespace, onClose }: ItemDialogProps) {
  const [edits, setEdits] = useState(!item);
  const [asks, setAsks] = useState(false);
  if (edits) return <Edit item={item} namespace={namespace} onClose={onClose} />;
  if (!item) return null;
  const name = item.namespace.join(".");
  return (
    <Dialog title={item.key} onClose={() => onClose(false)}>
      <Facts
        facts={[
          ["Namespace", item.namespace.join(" / ")],
          ["Created", <Age at={item.created_at} />],
          ["Changed", <Age at={item.updated_at} />],
          ["Similarity", item.score ?? undefined],
        ]}
      />
      <Json value={item.value} open={3} />
      {asks && <p>Agents that look for this item find nothing from then on. This cannot be undone.</p>}
      <p class="actions">
        {permits("store.put") && !asks && <Button onClick={() => setEdits(true)}>Edit</Button>}
        {permits("store.delete") && (
          <Button kind="danger" onClick={asks ? async () => (await deleteItem(item), onClose(true)) : () => setAsks(true)}>
            {asks ? "Delete the item" : "Delete"}
          </Button>
        )}
        {asks && <Button onClick={() => setAsks(false)}>Keep it</Button>}
        <AsCode
          http={`GET /store/items?namespace=${encodeURIComponent(name)}&key=${encodeURIComponent(item.key)}`}
          cli={`runlane store get ${shell(name)} ${shell(item.key)}`}
          python={`await client.store.get_item(${JSON.stringify(item.namespace)}, key=${JSON.stringify(item.key)})`}
        />
      </p>
    </Dialog>
  );
}

function Edit({ item, namespace, onClose }: ItemDialogProps) {
  const [labels, setLabels] = useState((item?.namespace ?? namespace).join("."));
  const [key, setKey] = useState(item?.key ?? "");
  const [value, setValue] = useState<unknown>(item?.value ?? {});
  const [readable, setReadable] = useState(true);
  const save = async () => {
    await writeItem(item?.namespace ?? labels.split("."), key, value, item);
    onClose(true);
  };
  return (
    <Dialog title={item ? `Edit ${item.key}` : "New item"} onClose={() => onClose(false)}>
      {!item && (
        <>
          <label>
            Namespace, labels joined with periods
            <input type="text" value={labels} onInput={(event) => setLabels(event.currentTarget.value)} />
          </label>
          <label>
            Key
            <input type="text" value={key} onInput={(event) => setKey(event.currentTarget.value)} />
          </label>
        </>
      )}
      <JsonEditor label="Value" value={value} onChange={setValue} onReadable={setReadable} problem={isObject(value) ? undefined : "An item is a JSON object: {…}."} />
      <p class="actions">
        <Button kind="primary" disabled={!readable || !isObject(value) || !key || !labels} onClick={save}>
          Save
        </Button>
        <Button onClick={() => onClose(false)}>Cancel</Button>
      </p>
    </Dialog>
  );
}
