/** What runs took: tokens, cost and time, by model, graph, owner, build or status, day by day. */
import { get } from "../lib/api";
import { Choice, TextField } from "../lib/fields";
import { cost, number } from "../lib/format";
import { useLive } from "../lib/live";
import { operates, type Total } from "../lib/operator";
import { place } from "../lib/route";
import { Empty, Head, Loaded } from "../lib/ui";
import { DayChart } from "./usage/chart";
import { Csv } from "./usage/csv";
import { type Measure, MEASURES, type Shown } from "./usage/measures";
import { TotalTable } from "./usage/table";

const EVERY_MS = 15_000;
const DAY_MS = 86_400_000;
const DAYS = 14;
const NAMED = 100;

function shown(): Shown {
  const { by = "model", of = "tokens", since, until, owner, graph, model } = place.value.query;
  const today = new Date().toISOString().slice(0, 10);
  const first = new Date(Date.now() - (DAYS - 1) * DAY_MS).toISOString().slice(0, 10);
  const measure = MEASURES.find((one) => one.id === of) ?? MEASURES[0]!;
  return { by, measure: fitting(by, model, measure), since: since ?? first, until: until ?? today, owner, graph, model };
}

/** Runs and times are not known of models. */
function fitting(by: string, model: string | undefined, measure: Measure): Measure {
  return measure.ofRuns && (by === "model" || model) ? MEASURES[0]! : measure;
}

export default function Usage() {
  const view = shown();
  const query = {
    by: view.by,
    since: `${view.since}T00:00:00Z`,
    until: `${view.until}T23:59:59Z`,
    owner: view.owner,
    graph: view.graph,
    model: view.model,
    daily: true,
    limit: NAMED,
  };
  const live = useLive((stop) => get<Total[]>("/operator/totals", query, stop), [query], EVERY_MS);
  return (
    <>
      <Head title="Usage" live={live} sentence={live.data && sentence(view, live.data)}>
        {live.data && <Csv view={view} totals={live.data} />}
      </Head>
      <Filters view={view} priced={isPriced(live.data ?? [])} />
      <Loaded live={live}>
        {(totals) =>
          totals.length ? (
            <>
              <DayChart view={view} totals={totals} />
              <TotalTable view={view} totals={totals} />
            </>
          ) : (
            <Empty>No run ended on these days.</Empty>
          )
        }
      </Loaded>
    </>
  );
}

/** Whether a model of these has a price. */
const isPriced = (totals: Total[]): boolean => totals.some((one) => one.cost !== null);

function Filters({ view, priced }: { view: Shown; priced: boolean }) {
  const kinds = ["model", "graph", "owner", "build", "status", "day"].filter((kind) => operates() || kind !== "owner");
  const offered = MEASURES.filter((one) => one.id !== "cost" || priced || view.measure === one);
  const measures = offered.filter((one) => !one.ofRuns || (view.by !== "model" && !view.model));
  return (
    <div class="filters">
      <Choice name="by" label="By" options={kinds.map((kind) => [kind === "model" ? "" : kind, kind])} />
      <Choice name="of" label="Of" options={measures.map((one, at) => [at ? one.id : "", one.name])} />
      <TextField name="since" label="From (UTC)" type="date" otherwise={view.since} />
      <TextField name="until" label="Until (UTC)" type="date" otherwise={view.until} />
      {operates() && <TextField name="owner" label="Owner" />}
      <TextField name="graph" label="Graph" />
      {view.by !== "status" && <TextField name="model" label="Model" />}
    </div>
  );
}

function sentence(view: Shown, totals: Total[]): string {
  if (!totals.length) return "Nothing was used.";
  const { measure, by } = view;
  if (measure.id === "cost" && !isPriced(totals)) return "Nothing of this has a price: the setting prices names a file of them.";
  const all = totals.reduce((sum, one) => sum + measure.of(one), 0);
  const spent = totals.reduce((sum, one) => sum + (one.cost ?? 0), 0);
  const most = [...totals].sort((a, b) => measure.of(b) - measure.of(a))[0]!;
  const share = all ? Math.round((measure.of(most) / all) * 100) : 0;
  const capped = totals.length === NAMED ? ` Only the ${number(NAMED)} largest are counted.` : "";
  const price = spent && measure.id !== "cost" ? `, which cost ${cost(spent)},` : "";
  const which = totals.length > 1 && all ? `; ${share} % of them ${by === "day" ? "on" : "of"} ${by} ${most.name || "(none)"}` : "";
  return `${measure.format(all)} ${measure.words}${price} from ${view.since} to ${view.until}${which}.${capped}`;
}
