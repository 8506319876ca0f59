/** The long-term store: namespaces as a tree, and the items in them. The namespace is the path. */
import { useState } from "preact/hooks";
import { shell } from "../lib/code";
import { FilterBar, useFilter } from "../lib/filter-bar";
import { number, plural } from "../lib/format";
import { useKept, useLive } from "../lib/live";
import { link, place } from "../lib/route";
import { me, permits } from "../lib/session";
import { type Column, Table } from "../lib/table";
import { Age, AsCode, Button, Empty, Head, Loaded } from "../lib/ui";
import { FIELDS, type Item, type Shelf, readShelf, searchOf } from "./store/data";
import { ItemDialog } from "./store/item";

const PAGE = 100;
const EVERY_MS = 5_000;
const BRIEF_CHARS = 120;

export default function Store() {
  if (me.value?.operator && me.value.identity) {
    return (
      <>
        <Head title="Store" sentence="An operator has no store." />
        <Empty>Items belong to their owner alone. Log in with the key of an owner to see theirs.</Empty>
      </>
    );
  }
  return <OwnStore />;
}

function OwnStore() {
  const namespace = place.value.path.slice(1);
  const given = useFilter(FIELDS);
  const refused = given.errors.length > 0;
  const [limit, setLimit] = useState(PAGE);
  const [opened, open] = useState<Item | "new">();
  const live = useKept(useLive(refused ? undefined : (stop) => readShelf(namespace, given.query, limit, stop), [namespace, given, limit], EVERY_MS));
  const search = searchOf(namespace, given.query, limit);
  return (
    <>
      <Head title="Store" sentence={!refused && live.data && sentence(live.data, namespace)} live={refused ? undefined : live}>
        {permits("store.put") && (
          <Button kind="primary" onClick={() => open("new")}>
            New item
          </Button>
        )}
        {!refused && (
          <AsCode
            http={`POST /store/items/search ${JSON.stringify(search)}`}
            cli={["runlane store search", ...(namespace.length ? [shell(namespace.join("."))] : [])].join(" ")}
            python={`await client.store.search_items(${JSON.stringify(namespace)}, limit=${limit})`}
          />
        )}
      </Head>
      <Crumbs namespace={namespace} />
      <FilterBar label="Filter of items" fields={FIELDS} given={given} example={'query:"what they like"'}>
        <Loaded live={live}>
          {(shelf) => (
            <>
              {shelf.ignored?.includes("query") && (
                <p class="banner">This store has no index for search by meaning: “query” chose nothing, and all items are shown.</p>
              )}
              {shelf.below.length > 0 && (
                <ul class="below" aria-label="Namespaces">
                  {shelf.below.map((label) => (
                    <li key={label}>
                      <a href={link(["store", ...namespace, label])}>
                        <bdi>{label}</bdi>
                      </a>
                    </li>
                  ))}
                </ul>
              )}
              {shelf.items.length > 0 ? (
                <Table label="Items" rows={shelf.items} id={(item) => JSON.stringify([item.namespace, item.key])} columns={columns(namespace, open)} />
              ) : (
                <Empty>{Object.keys(given.query).length ? "No item matches." : "No items yet. Graphs write them with their store, users with the API."}</Empty>
              )}
              {shelf.more && (
                <p class="end-of-list">
                  <Button onClick={() => setLimit(limit + PAGE)}>More</Button>
                </p>
              )}
            </>
          )}
        </Loaded>
      </FilterBar>
      {opened && (
        <ItemDialog
          item={opened === "new" ? undefined : opened}
          namespace={namespace}
          onClose={(changed) => {
            open(undefined);
            if (changed) live.reload();
          }}
        />
      )}
    </>
  );
}

function Crumbs({ namespace }: { namespace: string[] }) {
  if (!namespace.length) return null;
  return (
    <nav class="crumbs" aria-label="Namespace">
      <a href={link(["store"])}>all</a>
      {namespace.map((label, at) => (
        <span key={at}>
          {" / "}
          <a href={link(["store", ...namespace.slice(0, at + 1)])} aria-current={at === namespace.length - 1 ? "page" : undefined}>
            <bdi>{label}</bdi>
          </a>
        </span>
      ))}
    </nav>
  );
}

function columns(namespace: string[], open: (item: Item) => void): Column<Item>[] {
  return [
    {
      name: "Key",
      cell: (item) => (
        <button type="button" class="more" onClick={() => open(item)}>
          <bdi>{item.key}</bdi>
        </button>
      ),
    },
    {
      name: "Namespace",
      cell: (item) => {
        const rest = item.namespace.slice(namespace.length).join(" / ");
        return rest && <a href={link(["store", ...item.namespace])}>{rest}</a>;
      },
    },
    { name: "Value", cell: (item) => <code>{JSON.stringify(item.value).slice(0, BRIEF_CHARS)}</code> },
    { name: "Changed", end: true, cell: (item) => <Age at={item.updated_at} /> },
  ];
}

function sentence({ items, more, below }: Shelf, namespace: string[]): string {
  const where = namespace.length ? `in ${namespace.join(" / ")} and below` : "in all namespaces";
  const inside = below.length ? `; ${plural(below.length, "namespace")} below` : "";
  return `${number(items.length)}${more ? " or more" : ""} item${items.length === 1 ? "" : "s"} ${where}${inside}.`;
}
