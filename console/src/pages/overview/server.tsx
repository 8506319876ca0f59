/** The overview of those who see all owners. */
import { ApiError, get, path, post } from "../../lib/api";
import { FirstRun } from "../../lib/first-run";
import { Linked } from "../../lib/linked";
import { useLive, useNow } from "../../lib/live";
import type { FailureGroup, Overview, Total, Workers } from "../../lib/operator";
import { place } from "../../lib/route";
import { isRecorded } from "../../lib/runs";
import { Head, Loaded } from "../../lib/ui";
import { Concerns } from "./attention";
import { Builds } from "./builds";
import { type FoundByDoctor, type Known, concernsOf, healthSentence, newestBuild } from "./concerns";
import { Failures } from "./failures";
import { Gauges } from "./gauges";
import { Work } from "./work";

const EVERY_MS = 3_000;
const SLOWLY_MS = 15_000;

/** Read *route*; `undefined` where the key may not, or the server has no such thing. */
async function maybe<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof ApiError && [403, 404].includes(error.status)) return undefined;
    throw error;
  }
}

/** The overview, with the state sentence of a run that has waited long. */
async function readNow(stop: AbortSignal): Promise<{ overview: Overview; waits?: string; first: boolean }> {
  const overview = await get<Overview>("/operator/overview", {}, stop);
  const run = overview.oldest_waiting;
  const explained = run && (await maybe(get<{ sentence: string }>(path("/runs/{}/explain", run.run_id), {}, stop)));
  const quiet = !overview.running && !overview.waiting && !overview.endings.length;
  const first = quiet && !(await post<unknown[]>("/runs/search", { limit: 1 }, stop)).length;
  return { overview, waits: explained?.sentence, first };
}

export function ServerOverview() {
  const now = useNow(EVERY_MS);
  const { build } = place.value.query;
  const live = useLive(readNow, [], EVERY_MS);
  const workers = useLive((stop) => maybe(get<Workers>("/operator/workers", {}, stop)), [], EVERY_MS);
  const totals = useLive((stop) => maybe(get<Total[]>("/operator/totals", { by: "build" }, stop)), [], SLOWLY_MS);
  const builds = totals.data?.filter((one) => one.name); // the rest never started
  const failures = useLive((stop) => maybe(get<FailureGroup[]>("/operator/failures", { build, limit: 20 }, stop)), [build], isRecorded() ? null : SLOWLY_MS);
  const doctor = useLive((stop) => maybe(get<FoundByDoctor>("/operator/doctor", {}, stop)), [], SLOWLY_MS);

  const known: Known | undefined = live.data && {
    ...live.data,
    workers: workers.data,
    builds,
    failures: failures.data,
    doctor: doctor.data,
  };
  const newest = newestBuild(builds ?? [], workers.data);
  const concerns = known ? concernsOf(known, now) : [];
  return (
    <>
      <Head title="Overview" live={live} sentence={known && <Linked text={healthSentence(known, concerns)} />} />
      <Loaded live={live}>
        {({ overview, first }) => (
          <>
            {first && <FirstRun />}
            <Gauges overview={overview} />
            <Concerns concerns={concerns} />
            <Failures live={failures} newest={builds && builds.length > 1 ? newest : undefined} build={build} />
            <Builds builds={builds} workers={workers.data} newest={newest} />
            <Work overview={overview} />
          </>
        )}
      </Loaded>
    </>
  );
}
