/** Assistants: graphs with a configuration, and one of them. */
import { useState } from "preact/hooks";
import { shell } from "../lib/code";
import { FilterBar, useFilter } from "../lib/filter-bar";
import { number, plural } from "../lib/format";
import { useLive } from "../lib/live";
import { link, place } from "../lib/route";
import { permits } from "../lib/session";
import { type Column, Table } from "../lib/table";
import { Age, AsCode, Button, Chip, Empty, Head, Loaded } from "../lib/ui";
import { type Assistant, isSystem, readAssistants } from "./assistants/data";
import { Edit } from "./assistants/edit";
import { OneAssistant } from "./assistants/one";

const PAGE = 100;
const EVERY_MS = 10_000;
const FIELDS = [
  { name: "graph", hint: "the graph that it runs" },
  { name: "name", hint: "part of its name" },
];

export default function Assistants() {
  const id = place.value.path[1];
  return id ? <OneAssistant id={id} /> : <List />;
}

function List() {
  const given = useFilter(FIELDS);
  const refused = given.errors.length > 0;
  const [limit, setLimit] = useState(PAGE);
  const [creates, setCreates] = useState(false);
  const live = useLive(refused ? undefined : (stop) => readAssistants(given.query, limit, stop), [given], EVERY_MS);
  const graphs = [...new Set(live.data?.map((one) => one.graph_id))];
  const fields = FIELDS.map((field) => (field.name === "graph" ? { ...field, values: graphs } : field));
  return (
    <>
      <Head title="Assistants" sentence={live.data && sentence(live.data, limit)} live={refused ? undefined : live}>
        {permits("assistants.create") && graphs.length > 0 && (
          <Button kind="primary" onClick={() => setCreates(true)}>
            New assistant
          </Button>
        )}
        {!refused && (
          <AsCode
            http={`POST /assistants/search ${JSON.stringify({ graph_id: given.query["graph"], name: given.query["name"], limit })}`}
            cli={`runlane assistants ls${given.query["graph"] ? ` --graph ${shell(given.query["graph"])}` : ""}`}
            python={`await client.assistants.search(${given.query["graph"] ? `graph_id=${JSON.stringify(given.query["graph"])}, ` : ""}limit=${limit})`}
          />
        )}
      </Head>
      <FilterBar label="Filter of assistants" fields={fields} given={given} example="graph:agent">
        <Loaded live={live}>
          {(all) =>
            all.length ? (
              <>
                <Table label="Assistants" rows={all} id={(one) => one.assistant_id} columns={COLUMNS} open={(one) => link(["assistants", one.assistant_id])} />
                {all.length === limit && (
                  <p class="end-of-list">
                    <Button onClick={() => (setLimit(limit + PAGE), live.reload())}>More</Button>
                  </p>
                )}
              </>
            ) : (
              <Empty>{Object.keys(given.query).length ? "No assistant matches." : "There is no assistant that you may use."}</Empty>
            )
          }
        </Loaded>
      </FilterBar>
      {creates && <Edit graphs={graphs} onClose={() => setCreates(false)} />}
    </>
  );
}

const COLUMNS: Column<Assistant>[] = [
  { name: "Name", cell: (one) => <Chip to={["assistants", one.assistant_id]} id={one.assistant_id} label={one.name} /> },
  { name: "Graph", cell: (one) => <a href={link(["assistants"], { graph: one.graph_id })}>{one.graph_id}</a> },
  { name: "Version", end: true, cell: (one) => one.version },
  { name: "Made by", cell: (one) => (isSystem(one) ? "the server, for its graph" : "a user") },
  { name: "Description", wide: true, cell: (one) => one.description && <bdi>{one.description}</bdi> },
  { name: "Runs", cell: (one) => <a href={link(["runs"], { assistant: one.assistant_id })}>runs</a> },
  { name: "Changed", end: true, cell: (one) => <Age at={one.updated_at} /> },
];

function sentence(all: readonly Assistant[], limit: number): string {
  const own = all.filter((one) => !isSystem(one)).length;
  const count = `${number(all.length)}${all.length === limit ? " or more" : ""} assistant${all.length === 1 ? "" : "s"}`;
  return `${count} of ${plural(new Set(all.map((one) => one.graph_id)).size, "graph")}; ${number(own)} made by users.`;
}
