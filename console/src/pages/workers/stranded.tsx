import { number } from "../../lib/format";
import { MOST, type Workers } from "../../lib/operator";
import { link } from "../../lib/route";
import { Age } from "../../lib/ui";

/** Threads whose next run no worker can execute. */
export function Stranded({ fleet }: { fleet: Workers }) {
  return (
    <>
      {fleet.stranded.map((one) => (
        <div class="banner banner-error" role="alert" key={`${one.graph_id} ${one.build}`}>
          <span>
            {one.threads >= MOST ? `${number(MOST)}+` : number(one.threads)} thread{one.threads === 1 ? " waits" : "s wait"} for{" "}
            <a href={link(["runs"], { graph: one.graph_id, status: "pending" })}>{one.graph_id}</a>
            {one.build && <> in build {one.build}</>}, which no worker has; the oldest since <Age at={one.oldest_at} />.
          </span>
          <span>Start a worker that has it, or cancel these runs.</span>
        </div>
      ))}
    </>
  );
}
