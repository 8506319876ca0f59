/** A card beside the chip that is pointed at: what a run or a thread does, without going there. */
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { get, path, send } from "./api";
import { useLive } from "./live";
import { hide, leave, pointed, stay } from "./pointed";
import { type RunSummary, shownStatus, withoutPayload } from "./runs";
import { readThread, titleOf } from "./threads";
import { Age, Status } from "./ui";

const WIDTH = 340;
const MARGIN = 8;

export function Card() {
  const one = pointed.value;
  useEffect(() => {
    if (!one) return;
    const onKey = ({ key }: KeyboardEvent) => key === "Escape" && hide();
    addEventListener("keydown", onKey);
    addEventListener("scroll", hide, true);
    addEventListener("hashchange", hide);
    return () => {
      removeEventListener("keydown", onKey);
      removeEventListener("scroll", hide, true);
      removeEventListener("hashchange", hide);
    };
  }, [one]);
  if (!one) return null;
  const { kind, id, at } = one;
  const below = at.bottom < innerHeight / 2;
  const left = Math.max(MARGIN, Math.min(at.left, innerWidth - WIDTH - MARGIN));
  const where = below ? { top: `${at.bottom}px` } : { bottom: `${innerHeight - at.top}px` };
  return (
    <div class="hovercard" role="tooltip" style={{ left: `${left}px`, ...where }} onMouseEnter={stay} onMouseLeave={leave}>
      {kind === "run" ? <OfRun key={id} id={id} /> : <OfThread key={id} id={id} />}
      <p class="id">{id}</p>
    </div>
  );
}

function OfRun({ id }: { id: string }) {
  const { data, error } = useLive(
    async (stop) => ({
      run: await send<RunSummary>("GET", path("/runs/{}", id), { headers: withoutPayload(), signal: stop }),
      why: await get<{ sentence: string }>(path("/runs/{}/explain", id), {}, stop),
    }),
    [id],
    null,
  );
  if (!data) return <Unread error={error} />;
  const { run, why } = data;
  return (
    <>
      <p>
        <Status status={shownStatus(run)} /> asked for <Age at={run.created_at} />
      </p>
      <p>{why.sentence}</p>
    </>
  );
}

function OfThread({ id }: { id: string }) {
  const { data, error } = useLive(async (stop) => ({ thread: await readThread(id, withoutPayload(), stop) }), [id], null);
  if (!data) return <Unread error={error} />;
  if (!data.thread) return <Unread error={{ message: "There is no such thread any more." }} />;
  const { thread } = data;
  return (
    <>
      <p>
        <Status status={thread.status} /> changed <Age at={thread.updated_at} />
      </p>
      <p>
        <bdi>{titleOf(thread)}</bdi>
      </p>
    </>
  );
}

const Unread = ({ error }: { error: { message: string } | undefined }): ComponentChildren => <p>{error ? error.message : "…"}</p>;
