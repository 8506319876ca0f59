import { Linked } from "../../lib/linked";
import type { Concern } from "./concerns";

const SHAPES = { bad: "▲", late: "◷", held: "◆" };

/** What needs attention, the worst first; each leads to the thing. */
export function Concerns({ concerns }: { concerns: Concern[] }) {
  if (!concerns.length) return null;
  return (
    <section class="section" aria-labelledby="attention">
      <div class="section-head">
        <h2 id="attention">Needs attention</h2>
      </div>
      <ul class="concerns">
        {concerns.map((concern) => (
          <li key={concern.id} class={`concern-${concern.kind}`}>
            <span class="shape" aria-hidden="true">
              {SHAPES[concern.kind]}
            </span>
            <span>
              <Linked text={concern.text} />
            </span>
            <a class="concern-to" href={concern.to} aria-label={`${concern.place}: ${concern.text}`}>
              {concern.place} →
            </a>
          </li>
        ))}
      </ul>
    </section>
  );
}
