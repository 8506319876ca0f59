/** Sentences of the server, with links to the things that they name, and times in the viewer's zone. */
import type { ComponentChildren } from "preact";
import { moment, shortId } from "./format";
import { link } from "./route";

const UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
const NAMED = new RegExp(
  `(?<=\\b(run|thread|checkpoint|cron|request) (?:was )?)(${UUID})|(?<=\\bworker )([\\w.-]*\\w)|(\\d{4}-\\d\\d-\\d\\d) (\\d\\d:\\d\\d:\\d\\d) UTC`,
  "gi",
);

/** *thread*: the one whose checkpoints the sentence means. */
export function Linked({ text, thread }: { text: string; thread?: string }) {
  const parts: ComponentChildren[] = [];
  let end = 0;
  for (const match of text.matchAll(NAMED)) {
    const [all, kind, id, worker, day, time] = match;
    parts.push(text.slice(end, match.index));
    end = match.index + all.length;
    if (day) parts.push(<time dateTime={`${day}T${time}Z`}>{moment(`${day}T${time}Z`)}</time>);
    else if (worker) parts.push(<a href={link(["workers"], { worker })}>{worker}</a>);
    else parts.push(<Named kind={kind!.toLowerCase()} id={id!} thread={thread} />);
  }
  return (
    <>
      {parts}
      {text.slice(end)}
    </>
  );
}

function Named({ kind, id, thread }: { kind: string; id: string; thread?: string }) {
  const places: Record<string, string | undefined> = {
    run: link(["run", id]),
    thread: link(["thread", id]),
    cron: link(["crons", id]),
    checkpoint: thread && link(["thread", thread], { checkpoint: id }),
  };
  const to = places[kind];
  return to ? (
    <a href={to} title={id}>
      {shortId(id)}
    </a>
  ) : (
    <span title={id}>{shortId(id)}</span>
  );
}
