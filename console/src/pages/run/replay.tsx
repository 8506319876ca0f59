/** The scrub bar: shows the run as it was by any of its events, and plays it again. */
import { useEffect, useState } from "preact/hooks";
import { between, duration, number } from "../../lib/format";
import { useKeys } from "../../lib/keys";
import { setQuery } from "../../lib/route";
import type { Run } from "./data";
import type { RunLog } from "./log";

const SPEEDS = ["1×", "4×", "max"] as const;
type Speed = (typeof SPEEDS)[number];
/** Seconds that the fastest replay takes. */
const FASTEST_S = 4;

export function Replay({ log, run, active }: { log: RunLog; run: Run; active: boolean }) {
  log.version.value;
  const [playing, setPlaying] = useState(false);
  const [speed, setSpeed] = useState<Speed>("1×");
  const at = log.moment.value ?? log.count;
  const stop = () => {
    setPlaying(false);
    setQuery({ at: log.moment.peek() === null ? undefined : String(log.moment.peek()) }, { replace: true });
  };
  usePlayer(log, playing, secondsOf(run, speed), stop);
  const play = () => {
    if (playing) return stop();
    if (at >= log.count) log.moment.value = 0;
    setPlaying(true);
  };
  const move = (to: number) => {
    log.moment.value = to >= log.count ? null : Math.max(0, to);
  };
  useKeys(
    [
      { press: "p", does: "Replay the run, or pause", run: play },
      { press: "[", does: "One event back", run: () => move((log.moment.peek() ?? log.count) - 1) },
      { press: "]", does: "One event on", run: () => move((log.moment.peek() ?? log.count) + 1) },
    ],
    [log, playing, speed],
  );
  if (log.count < 2) return null;
  const end = active ? "live" : "end";
  return (
    <div class="replay" role="group" aria-label="Replay">
      <button type="button" class="button" onClick={play} aria-label={playing ? "Pause" : "Replay"} title="Replay ( p )">
        {playing ? "❚❚" : "▶"}
      </button>
      <select aria-label="Speed" value={speed} onChange={(event) => setSpeed(event.currentTarget.value as Speed)} title={paceOf(run)}>
        {SPEEDS.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
      <input
        type="range"
        aria-label="Event"
        aria-valuetext={`${number(at)} of ${number(log.count)} events`}
        min={0}
        max={log.count}
        value={at}
        onInput={(event) => move(Number(event.currentTarget.value))}
        onChange={stop}
      />
      <span class="replay-at">
        {number(at)} / {number(log.count)}
      </span>
      <button type="button" class="button" disabled={log.moment.value === null} onClick={() => (move(log.count), stop())}>
        {end}
      </button>
    </div>
  );
}

/** Events have no times of their own: a replay spreads them evenly. */
const paceOf = (run: Run): string => `1× takes as long as the run took (${duration(tookOf(run))}); events are spread evenly`;

function tookOf(run: Run): number {
  return run.started_at ? Math.max(1, between(run.started_at, run.ended_at)) : 1;
}

function secondsOf(run: Run, speed: Speed): number {
  return speed === "max" ? Math.min(FASTEST_S, tookOf(run)) : tookOf(run) / (speed === "4×" ? 4 : 1);
}

/** Move the moment on with each frame while *playing*, so that the whole log takes *seconds*. */
function usePlayer(log: RunLog, playing: boolean, seconds: number, stop: () => void): void {
  useEffect(() => {
    if (!playing) return;
    let frame = 0;
    let exact = log.moment.peek() ?? 0;
    let before = performance.now();
    const step = (now: number) => {
      exact += ((now - before) / 1000 / seconds) * log.count;
      before = now;
      log.moment.value = exact >= log.count ? null : Math.floor(exact);
      if (log.moment.peek() === null) stop();
      else frame = requestAnimationFrame(step);
    };
    frame = requestAnimationFrame(step);
    return () => cancelAnimationFrame(frame);
  }, [log, playing, seconds]);
}
