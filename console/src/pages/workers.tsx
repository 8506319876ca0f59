/** The processes that execute runs, and the builds that they have. */
import { get } from "../lib/api";
import { plural } from "../lib/format";
import { useLive } from "../lib/live";
import type { Workers as Fleet } from "../lib/operator";
import { Head, Loaded } from "../lib/ui";
import { BuildTable } from "./workers/builds";
import { Stranded } from "./workers/stranded";
import { WorkerTable } from "./workers/table";

const EVERY_MS = 2_000;

export default function Workers() {
  const live = useLive((stop) => get<Fleet>("/operator/workers", {}, stop), [], EVERY_MS);
  return (
    <>
      <Head title="Workers" live={live} sentence={live.data && sentence(live.data)} />
      <Loaded live={live}>
        {(fleet) => (
          <>
            <Stranded fleet={fleet} />
            <WorkerTable fleet={fleet} reload={live.reload} />
            <BuildTable fleet={fleet} />
          </>
        )}
      </Loaded>
    </>
  );
}

function sentence({ workers: all, stranded, builds }: Fleet): string {
  const workers = all.filter((worker) => worker.capacity);
  const counted = (state: string) => workers.filter((worker) => worker.state === state).length;
  const slots = workers.filter((worker) => worker.state === "ready").reduce((sum, worker) => sum + worker.capacity, 0);
  const running = workers.reduce((sum, worker) => sum + worker.running, 0);
  const parts = [`${plural(counted("ready"), "worker is", "workers are")} ready, with ${plural(running, "run")} in ${plural(slots, "slot")}`];
  if (counted("draining")) parts.push(plural(counted("draining"), "drains", "drain"));
  if (counted("silent")) parts.push(`${plural(counted("silent"), "is", "are")} silent`);
  const idle = all.length - workers.length;
  const servers = idle ? ` ${plural(idle, "server executes", "servers execute")} no runs.` : "";
  const mixed = builds.filter((build) => build.workers).length > 1 ? " They have different builds." : "";
  const lost = stranded.reduce((sum, one) => sum + one.threads, 0);
  return `${parts.join(", ")}.${servers}${mixed}${lost ? ` ${plural(lost, "thread waits", "threads wait")} for what no worker has.` : ""}`;
}
