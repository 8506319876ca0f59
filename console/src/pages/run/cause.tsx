/** Why the run is as it is: what happened to it, each with what shows it. */
import { age, between, duration, moment } from "../../lib/format";
import { Linked } from "../../lib/linked";
import { link } from "../../lib/route";
import { Chip, Facts } from "../../lib/ui";
import type { Known, Step } from "./data";

export function CauseTab({ known: { run, why } }: { known: Known }) {
  return (
    <ol class="cause">
      {why.steps.map((step, at) => (
        <li key={at}>
          <time dateTime={step.at} title={`${moment(step.at)}, ${age(step.at)}`}>
            {at ? `+${duration(between(why.steps[0]!.at, step.at))}` : moment(step.at)}
          </time>
          <div>
            <p>
              <Linked text={step.sentence} thread={run.thread_id} />
            </p>
            <Evidence step={step} thread={run.thread_id} />
          </div>
        </li>
      ))}
      {why.remedies.length > 0 && (
        <li>
          <span>now</span>
          <div>
            {why.remedies.map((remedy) => (
              <p key={remedy.path}>
                What you can do: <Linked text={remedy.does} />. <code>{`${remedy.method} ${remedy.path}`}</code>
              </p>
            ))}
          </div>
        </li>
      )}
    </ol>
  );
}

function Evidence({ step, thread }: { step: Step; thread: string }) {
  return (
    <details>
      <summary>
        <span class="mono">{step.kind}</span>
      </summary>
      <Facts
        facts={[
          ["At", moment(step.at)],
          ["Attempt", step.attempt],
          ["Worker", step.worker_id && <Chip to={["workers"]} query={{ worker: step.worker_id }} id={step.worker_id} label={step.worker_id} />],
          ["Build", step.build],
          ["Checkpoint", step.checkpoint_id && <a href={link(["thread", thread], { checkpoint: step.checkpoint_id })}>{step.checkpoint_id}</a>],
          ["Run", step.run_id && <Chip to={["run", step.run_id]} id={step.run_id} />],
          ["Reason", step.reason],
          ["Handed back", step.handed_back],
        ]}
      />
    </details>
  );
}
