/** The versions of an assistant. An earlier one becomes the current one again. */
import { useState } from "preact/hooks";
import { path, post } from "../../lib/api";
import { Json } from "../../lib/json";
import { useLive } from "../../lib/live";
import { permits, seesPayload } from "../../lib/session";
import { type Column, Table } from "../../lib/table";
import { AsCode, Button, Dialog, Hidden, Loaded, Age } from "../../lib/ui";
import { type Assistant, isSystem } from "./data";

const SHOWN = 100;

export function Versions({ assistant, reload }: { assistant: Assistant; reload: () => void }) {
  const id = assistant.assistant_id;
  const [asks, ask] = useState<Assistant>();
  const live = useLive((stop) => post<Assistant[]>(path("/assistants/{}/versions", id), { limit: SHOWN }, stop), [id, assistant.version], null);
  const changes = !isSystem(assistant) && permits("assistants.update");
  const columns: Column<Assistant>[] = [
    { name: "Version", cell: (one) => `${one.version}${one.version === assistant.version ? " · current" : ""}` },
    { name: "Name", cell: (one) => <bdi>{one.name}</bdi> },
    { name: "Context", cell: (one) => (seesPayload.value ? <code>{JSON.stringify(one.context)}</code> : <Hidden />) },
    { name: "Made", end: true, cell: (one) => <Age at={one.created_at} /> },
    {
      name: "",
      end: true,
      cell: (one) => changes && one.version !== assistant.version && <Button onClick={() => ask(one)}>Make it current</Button>,
    },
  ];
  const set = async (version: number) => {
    await post(path("/assistants/{}/latest", id), { version });
    ask(undefined);
    reload();
  };
  return (
    <>
      <Loaded live={live}>{(all) => <Table label="Versions" rows={all} id={(one) => String(one.version)} columns={columns} />}</Loaded>
      {asks && (
        <Dialog title={`Make version ${asks.version} the current one?`} onClose={() => ask(undefined)}>
          <p>Runs that start from now on use its configuration and context. Those that are under way keep theirs.</p>
          <Json value={{ context: asks.context, config: asks.config }} open={3} />
          <p class="actions">
            <Button kind="primary" onClick={() => set(asks.version)}>
              Make it current
            </Button>
            <Button onClick={() => ask(undefined)}>Leave it</Button>
            <AsCode
              http={`POST /assistants/${id}/latest {"version": ${asks.version}}`}
              cli={`runlane assistants versions ${id} --set ${asks.version}`}
              python={`await client.assistants.set_latest("${id}", ${asks.version})`}
            />
          </p>
        </Dialog>
      )}
    </>
  );
}
