/** The run's time: how long it waited, its attempts, and its nodes, superstep by superstep. */
import type { ComponentChildren } from "preact";
import type { Conversation } from "../../lib/chat";
import { between, duration, moment, plural } from "../../lib/format";
import { useNow } from "../../lib/live";
import { visibleText } from "../../lib/plain";
import { isActive } from "../../lib/runs";
import type { Explanation, Known } from "./data";
import { MOST_STEPS, type Superstep, useSupersteps } from "./steps";

interface Bar {
  from: string;
  to: string | null;
  kind: "wait" | "attempt" | "lost" | "node" | "now";
  title: string;
}

interface TimelineProps {
  known: Known;
  said: Conversation;
  /** When the run was read last, if the server cannot be reached since; what goes on is shown until then. */
  lostAt: number | undefined;
}

export function Timeline({ known: { run, why, aheadMs }, said, lostAt }: TimelineProps) {
  const active = isActive(run);
  const supersteps = useSupersteps(run, active);
  const clock = useNow(active ? 500 : 60_000);
  const now = lostAt ?? clock;
  const end = run.ended_at ? Date.parse(run.ended_at) : now + aheadMs;
  const begin = Date.parse(run.created_at);
  const scale = { begin, length: Math.max(1, end - begin) };
  const steps = supersteps.data ?? [];
  return (
    <section class="timeline" aria-label="Timeline">
      {rowsOf(why, steps, run.created_at, run.ended_at, end).map((row) => (
        <Row key={row.name} name={row.name} note={row.note} bars={row.bars} scale={scale} />
      ))}
      <Tools said={said} active={active} />
      {steps.length >= MOST_STEPS - 2 && <p class="quiet">The newest {plural(MOST_STEPS, "checkpoint")} of the run.</p>}
      <p class="timeline-axis">
        <span>{moment(begin)}</span>
        <span>
          {run.ended_at ? "took " : ""}
          {duration((end - begin) / 1000)}
          {run.ended_at ? "" : lostAt ? " when the server was heard last" : " so far"}
        </span>
      </p>
    </section>
  );
}

interface RowOf {
  name: string;
  note?: ComponentChildren;
  bars: Bar[];
}

function rowsOf(why: Explanation, steps: Superstep[], created: string, ended: string | null, now: number): RowOf[] {
  const claims = why.steps.filter((step) => step.kind === "claimed");
  const first = claims[0]?.at ?? null;
  const queued = between(created, first ?? ended, now);
  const rows: RowOf[] = [
    {
      name: "queued",
      note: duration(queued),
      bars: [{ from: created, to: first ?? ended, kind: "wait", title: `Waited ${duration(queued)}` }],
    },
  ];
  for (const claim of claims) rows.push(attemptOf(claim.attempt ?? 0, claim.at, why, ended));
  const executed = steps.flatMap((step) => whileExecuted(step, why));
  for (const name of new Set(steps.flatMap((step) => step.nodes))) rows.push(nodeOf(name, executed, now));
  return rows;
}

function attemptOf(attempt: number, from: string, why: Explanation, ended: string | null): RowOf {
  const handed = why.steps.find((step) => step.kind === "handed_back" && step.attempt === attempt);
  const to = handed?.at ?? ended;
  const lost = handed?.handed_back === "lost";
  const note = lost ? "▲ lost its worker" : handed ? "handed back" : to ? duration(between(from, to)) : "executes";
  const title = `Attempt ${attempt}: ${duration(between(from, to))}${handed ? `. ${handed.sentence}` : ""}`;
  return { name: `attempt ${attempt}`, note, bars: [{ from, to, kind: lost ? "lost" : to ? "attempt" : "now", title }] };
}

/** Return the parts of a superstep in which an attempt executed it: one that was handed back begins it again. */
function whileExecuted(step: Superstep, why: Explanation): Superstep[] {
  const inside = (at: string) => at > step.from && (!step.to || at < step.to);
  const again = why.steps.find(({ kind, attempt, at }) => kind === "claimed" && attempt !== 1 && inside(at));
  const handed = again && why.steps.findLast(({ kind, at }) => kind === "handed_back" && at <= again.at);
  return again && handed ? [{ ...step, to: handed.at }, ...whileExecuted({ ...step, from: again.at }, why)] : [step];
}

function nodeOf(name: string, steps: Superstep[], now: number): RowOf {
  const own = steps.filter((step) => step.nodes.includes(name));
  const took = own.reduce((sum, step) => sum + between(step.from, step.to, now), 0);
  return {
    name: visibleText(name),
    note: own.length > 1 ? `${own.length} × ${duration(took / own.length)}` : duration(took),
    bars: own.map(({ from, to, step }) => ({
      from,
      to,
      kind: to ? "node" : "now",
      title: `${name}${step === undefined ? "" : `, step ${step}`}: ${duration(between(from, to, now))}`,
    })),
  };
}

interface Scale {
  begin: number;
  length: number;
}

function Row({ name, note, bars, scale }: RowOf & { scale: Scale }) {
  const percent = (at: number) => (100 * (at - scale.begin)) / scale.length;
  return (
    <div class="timeline-row">
      <bdi class="timeline-name" title={name}>
        {name}
      </bdi>
      <div class="timeline-track">
        {bars.map((bar) => {
          const left = Math.min(99.6, Math.max(0, percent(Date.parse(bar.from))));
          const right = Math.min(100, bar.to ? percent(Date.parse(bar.to)) : 100);
          return (
            <span
              key={bar.from}
              class={`bar bar-${bar.kind}`}
              title={bar.title}
              style={{ left: `${left}%`, width: `${Math.max(0.3, right - left)}%` }}
            />
          );
        })}
      </div>
      <span class="timeline-note">{note}</span>
    </div>
  );
}

const MOST_CALLS = 12;

/** The newest tool calls: which have answered, and of which that is not known. */
function Tools({ said, active }: { said: Conversation; active: boolean }) {
  const answers = new Map(said.messages.filter((one) => one.answers).map((one) => [one.answers!, one]));
  const calls = said.messages.slice(said.earlier ?? 0).flatMap((message) => message.calls);
  if (!calls.length) return null;
  return (
    <div class="timeline-row">
      <span class="timeline-name">calls</span>
      <div class="timeline-tools">
        {calls.slice(-MOST_CALLS).map((call, at) => {
          const answer = call.id === null ? undefined : answers.get(call.id);
          const [sign, words] = answer ? (answer.failed ? ["▲", "failed"] : ["✓", "done"]) : active ? ["◐", "running"] : ["?", "unknown"];
          return (
            <span key={call.id ?? at} class={`tool tool-${words}`}>
              <bdi>{visibleText(call.name)}</bdi> {sign} <span class="hidden">{words}</span>
            </span>
          );
        })}
      </div>
      <span class="timeline-note">{calls.length > MOST_CALLS ? `newest of ${calls.length}` : plural(calls.length, "call")}</span>
    </div>
  );
}
