import { get } from "../../lib/api";
import { moment } from "../../lib/format";
import { useLive } from "../../lib/live";
import { me } from "../../lib/session";
import { Table } from "../../lib/table";
import { Age } from "../../lib/ui";

interface ShownKey {
  key_id: string;
  identity: string;
  scopes: string[];
  created_at: string | null;
  expires_at: string | null;
  last_used_at: string | null;
}

/** The API keys of the server's file, none with its secret. */
export function Keys() {
  const live = useLive((stop) => (me.value?.identity ? get<ShownKey[]>("/keys", {}, stop) : Promise.resolve([])), [me.value?.identity], null);
  if (!live.data?.length) return null;
  return (
    <section class="section" aria-labelledby="keys">
      <div class="section-head">
        <h2 id="keys">API keys</h2>
      </div>
      <Table
        label="API keys"
        rows={live.data}
        id={(key) => key.key_id}
        columns={[
          { name: "Whose", cell: (key) => <bdi>{key.identity}</bdi> },
          { name: "Key", cell: (key) => <code>{key.key_id}</code> },
          { name: "Scopes", cell: (key) => key.scopes.join(", ") || "an owner" },
          { name: "Made", cell: (key) => key.created_at && <Age at={key.created_at} />, wide: true },
          { name: "Ends", cell: (key) => (key.expires_at ? moment(key.expires_at) : "never"), wide: true },
          { name: "Last used", cell: (key) => (key.last_used_at ? <Age at={key.last_used_at} /> : "never") },
        ]}
      />
      <p class="quiet">The last use is true to the hour. Keys are made with “runlane keys new”, and revoked with “runlane keys revoke”.</p>
    </section>
  );
}
