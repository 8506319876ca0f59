/** Parts that every page uses. Text of users and agents is text here, never markup. */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import type { ApiError } from "./api";
import { curl } from "./code";
import { age, clock, moment, shortId } from "./format";
import { type Live, useNow } from "./live";
import { withCard } from "./pointed";
import { link, place } from "./route";

/** Status by word, shape and colour. `paused`: waits for a person. */
export const SHAPES: Record<string, string> = {
  pending: "○",
  running: "◐",
  success: "●",
  error: "▲",
  timeout: "◷",
  interrupted: "■",
  paused: "◆",
  idle: "●",
  busy: "◐",
};

export function Status({ status }: { status: string }) {
  return (
    <span class={`status status-${status}`}>
      <span class="shape" aria-hidden="true">
        {SHAPES[status] ?? "○"}
      </span>
      {status}
    </span>
  );
}

/** A thing that has a page: its name as a link, which copies the whole id beside it. Runs and threads have a card. */
export function Chip({ to, query, id, label, title }: ChipProps) {
  const carded = to[0] === "run" || to[0] === "thread";
  return (
    <span class="chip" {...(carded ? withCard(to[0]!, id) : {})}>
      <a href={link(to, query)} title={carded ? undefined : (title ?? id)}>
        <bdi>{label ?? shortId(id)}</bdi>
      </a>
      <Copy text={id} what={id} />
    </span>
  );
}

interface ChipProps {
  to: string[];
  query?: Record<string, string | undefined>;
  id: string;
  label?: string;
  title?: string;
}

export function Copy({ text, what, children }: { text: string; what: string; children?: ComponentChildren }) {
  const [done, set] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    set(true);
    setTimeout(() => set(false), 1_200);
  };
  return (
    <button type="button" class="copy" onClick={copy} aria-label={`Copy ${what}`} title={`Copy ${what}`}>
      {children ?? (
        <svg viewBox="0 0 12 12" aria-hidden="true">
          <path d={done ? "M1.5 6.5l3 3 6-7" : "M4 4h7v7H4zM4 8H1V1h7v3"} />
        </svg>
      )}
      <span class="hidden" role="status">
        {done ? "Copied" : ""}
      </span>
    </button>
  );
}

/** An instant as an age, with the moment itself on hover. A list gives its own *now*, so that its rows agree. */
export function Age({ at, now }: { at: string; now?: number }) {
  useNow(5_000); // shown again
  return (
    <time dateTime={at} title={moment(at)}>
      {age(at, now ?? Date.now())}
    </time>
  );
}

/** How fresh what the page shows is. */
export function Fresh({ live }: { live: Live<unknown> }) {
  const asOf = live.asOf === undefined ? "" : clock(live.asOf);
  const words = {
    loading: "reading…",
    live: `live, as of ${asOf}`,
    still: `as of ${asOf}`,
    paused: `paused, as of ${asOf}`,
    stale: asOf ? `stale: last read ${asOf}` : "not read",
  }[live.freshness];
  return (
    <span class={`fresh fresh-${live.freshness}`}>
      <span aria-hidden="true">●</span> {words}
    </span>
  );
}

/** The page's head: its name, and one sentence that answers before the data. */
export function Head({ title, sentence, live, children }: HeadProps) {
  return (
    <header class="head">
      <div class="head-line">
        <h1>{title}</h1>
        <div class="actions">
          {children}
          {live && <Fresh live={live} />}
        </div>
      </div>
      {sentence && <p class="sentence">{sentence}</p>}
    </header>
  );
}

interface HeadProps {
  title: ComponentChildren;
  sentence?: ComponentChildren;
  live?: Live<unknown>;
  children?: ComponentChildren;
}

/** Show what *live* has read; before that a skeleton, and an error where it could not be read, beside older data. */
export function Loaded<T>({ live, children, rows = 6 }: LoadedProps<T>) {
  return (
    <>
      {live.error && <Failed error={live.error} retry={live.reload} />}
      {live.data !== undefined ? (
        <div class={live.error ? "greyed" : undefined}>{children(live.data)}</div>
      ) : (
        !live.error && <Skeleton rows={rows} />
      )}
    </>
  );
}

interface LoadedProps<T> {
  live: Live<T>;
  children: (data: T) => ComponentChildren;
  rows?: number;
}

export function Skeleton({ rows }: { rows: number }) {
  return (
    <div class="skeleton" role="status" aria-busy="true" aria-label="Reading">
      {Array.from({ length: rows }, (_, row) => (
        <span key={row} />
      ))}
    </div>
  );
}

export function Failed({ error, retry }: { error: ApiError; retry?: () => void }) {
  return (
    <div class="banner banner-error" role="alert">
      <span>{error.message}</span>
      {retry && (
        <button type="button" onClick={retry}>
          Read again
        </button>
      )}
    </div>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <div class="empty">{children}</div>;
}

/** What stands in the place of payload that the reader may not see. */
export function Hidden() {
  return (
    <span class="payload-hidden" title="Your key has no scope payload:read.">
      hidden
    </span>
  );
}

interface ButtonProps extends Omit<JSX.IntrinsicElements["button"], "onClick"> {
  kind?: "plain" | "primary" | "danger";
  /** While it runs the button is disabled; what it throws is shown beside it. */
  onClick?: () => unknown;
}

export function Button({ kind = "plain", onClick, children, disabled, ...rest }: ButtonProps) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string>();
  const act = async () => {
    setBusy(true);
    setError(undefined);
    try {
      await onClick?.();
    } catch (failure) {
      setError(failure instanceof Error ? failure.message : String(failure));
    }
    setBusy(false);
  };
  return (
    <>
      <button type="button" class={`button ${kind}`} {...rest} disabled={disabled || busy} aria-busy={busy} onClick={act}>
        {children}
      </button>
      {error && (
        <span class="refusal" role="alert">
          {error}
        </span>
      )}
    </>
  );
}

/** A modal dialog, which asks with consequences. It is open as long as it is shown. */
interface DialogProps {
  title: string;
  onClose: () => void;
  /** Something is under way that its reader has to see: the dialog stays until it is over, and `onClose` only asks. */
  busy?: boolean;
  children: ComponentChildren;
}

export function Dialog({ title, onClose, busy = false, children }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  const name = useId();
  useEffect(() => {
    element.current?.showModal();
  }, []);
  return (
    <dialog
      ref={element}
      aria-labelledby={name}
      onCancel={(event) => {
        if (!busy) return;
        event.preventDefault();
        onClose();
      }}
      onClose={() => (busy ? element.current?.showModal() : onClose())}
      onClick={(event) => event.target === element.current && onClose()}
    >
      <div class="dialog">
        <h2 id={name}>{title}</h2>
        {children}
      </div>
    </dialog>
  );
}

/** What is seen of the tab before the chosen one, where there is no room for all. */
const NEIGHBOUR_PX = 48;

/** Return the tab that the page's address names, or else *usual*. */
export function tabOf(names: [string, string][], usual: string): string {
  const { tab } = place.value.query;
  return names.find(([name]) => name === tab)?.[0] ?? usual;
}

/** The tabs of a page; which one is in the URL. */
export function Tabs({ names, chosen, to }: { names: [string, string][]; chosen: string; to: (name: string) => string }) {
  const bar = useRef<HTMLElement>(null);
  useEffect(() => {
    const current = bar.current?.querySelector<HTMLElement>("[aria-current]");
    if (current) bar.current!.scrollLeft = current.offsetLeft - bar.current!.offsetLeft - NEIGHBOUR_PX;
  }, [chosen]);
  return (
    <nav ref={bar} class="tabs" aria-label="Parts of this page">
      {names.map(([name, label]) => (
        <a key={name} href={to(name)} aria-current={name === chosen ? "page" : undefined}>
          {label}
        </a>
      ))}
    </nav>
  );
}

/** The same action as an HTTP call, which is copied as curl, a command and a line of Python. */
export function AsCode({ http, cli, python }: { http: string; cli?: string; python?: string }) {
  const lines: [string, string | undefined, string?][] = [
    ["HTTP", http, "curl"],
    ["CLI", cli],
    ["Python", python],
  ];
  return (
    <details class="as-code">
      <summary aria-label="Show as code">{"</>"}</summary>
      <dl>
        {lines.map(
          ([name, line, copied = name]) =>
            line && (
              <div key={name}>
                <dt>{name}</dt>
                <dd>
                  <code>{line}</code>
                  <Copy text={copied === "curl" ? curl(line) : line} what={copied} />
                </dd>
              </div>
            ),
        )}
      </dl>
    </details>
  );
}

/** A list of names and values. */
export function Facts({ facts }: { facts: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {facts
        .filter(([, value]) => value !== null && value !== undefined && value !== "")
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}
