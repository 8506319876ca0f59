/** What is around every page: the head, the navigation, the keys, and the login where the server asks for one. */
import { signal } from "@preact/signals";
import type { ComponentType } from "preact";
import { useEffect, useErrorBoundary, useRef, useState } from "preact/hooks";
import { contact, get, page as pageOf } from "./lib/api";
import { age, utc } from "./lib/format";
import { keys, useKeys } from "./lib/keys";
import { useLive, useNow, visible } from "./lib/live";
import { find } from "./lib/find";
import { pointed } from "./lib/pointed";
import { go, link, pageName, place } from "./lib/route";
import { withoutPayload } from "./lib/runs";
import { type Me, credential, locked, logOut, me, permits } from "./lib/session";
import { Dialog, Empty, Skeleton } from "./lib/ui";
import { Login } from "./login";
import { PAGES, type PageOf } from "./pages";
import { Palette } from "./palette";

const theme = signal<string>(localStorage.getItem("runlane.theme") ?? "");
theme.subscribe((value) => {
  if (value) document.documentElement.dataset["theme"] = value;
  else delete document.documentElement.dataset["theme"];
});

export function Frame() {
  const [ready, setReady] = useState(false);
  const given = credential.value;
  useEffect(() => {
    const ask = async () => {
      try {
        me.value = await get<Me>("/me");
        locked.value = false;
      } catch {
        // What is wrong is in `contact` and `locked`.
      }
      setReady(true);
    };
    void ask();
  }, [given]); // another tab may give its own late
  if (locked.value) return <Login />;
  if (!ready) return null;
  return <Shell />;
}

export const offered = (): PageOf[] =>
  PAGES.filter((page) => page.group !== "none" && (!page.needs || permits(page.needs)));

function Shell() {
  const [open, setOpen] = useState<"palette" | "help">();
  const search = useRef<HTMLInputElement>(null);
  useKeys(
    [
      ...offered()
        .filter((page) => page.key)
        .map((page) => ({ press: `g ${page.key}`, does: page.title, run: () => go([page.name]) })),
      { press: "/", does: "Search", run: () => search.current?.focus() },
      { press: "?", does: "Show the keys", run: () => setOpen("help") },
      { press: "Ctrl k", does: "Open the palette", run: () => setOpen("palette") },
    ],
    [me.value],
  );
  return (
    <div class="shell">
      <a class="skip" href={`${location.hash || "#/"}`} onClick={(event) => skip(event)}>
        To the page
      </a>
      <header class="top">
        <a class="brand" href="#/overview">
          Runlane
        </a>
        <form
          class="search"
          role="search"
          onSubmit={(event) => {
            event.preventDefault();
            const text = search.current?.value.trim();
            if (text) void find(text);
          }}
        >
          <input ref={search} type="search" aria-label="Search runs and threads" placeholder="Run, thread or text ( / )" />
        </form>
        <Contact />
        <button type="button" class="icon" aria-label="Show the keys" title="Keys ( ? )" onClick={() => setOpen("help")}>
          <span aria-hidden="true">?</span>
        </button>
        <button
          type="button"
          class="icon"
          title={utc.value ? "Times are in UTC" : "Times are in your zone"}
          onClick={() => {
            utc.value = !utc.value;
            localStorage.setItem("runlane.utc", String(utc.value));
          }}
        >
          {utc.value ? "UTC" : "local time"}
        </button>
        <button type="button" class="icon" aria-label="Dark or light" title="Dark or light" onClick={turnTheme}>
          <span aria-hidden="true">◐</span>
        </button>
        <User />
      </header>
      <Navigation />
      <main class="page" id="page" tabIndex={-1}>
        <CurrentPage />
      </main>
      <PointedCard />
      {open === "palette" && <Palette onClose={() => setOpen(undefined)} />}
      {open === "help" && <Keys onClose={() => setOpen(undefined)} />}
    </div>
  );
}

function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("page")?.focus();
}

function turnTheme(): void {
  const dark = theme.value ? theme.value === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  theme.value = dark ? "light" : "dark";
  localStorage.setItem("runlane.theme", theme.value);
}

function Contact() {
  const now = useNow(1_000);
  const { at, lost } = contact.value;
  if (lost) {
    return (
      <span class="contact contact-lost" role="status">
        ▲ {lost} {age(new Date(at).toISOString(), now)}
      </span>
    );
  }
  return <span class="contact">{visible.value ? "● live" : "paused"}</span>;
}

function User() {
  if (!me.value?.identity) return null;
  const role = me.value.operator ? (me.value.scopes.includes("admin") ? "operator" : "operator, limited") : "owner";
  return (
    <details class="menu user">
      <summary>
        <bdi>{me.value.identity}</bdi>
      </summary>
      <div class="menu-items">
        <p>
          {role}
          {me.value.sees_payload ? "" : ", payload hidden"}
        </p>
        {credential.value && (
          <button type="button" onClick={() => logOut()}>
            Log out
          </button>
        )}
      </div>
    </details>
  );
}

function Navigation() {
  const pages = offered();
  const here = pageName.value === "run" ? "runs" : pageName.value === "thread" ? "threads" : pageName.value;
  const rail = useRef<HTMLElement>(null);
  useEffect(() => {
    // At the bottom of a narrow screen not all of it is seen.
    rail.current?.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [here]);
  return (
    <nav ref={rail} class="rail" aria-label="Pages">
      {(["work", "things", "server"] as const).map((group) => (
        <ul key={group}>
          {pages
            .filter((page) => page.group === group)
            .map((page) => (
              <li key={page.name}>
                <a href={link([page.name])} aria-current={page.name === here ? "page" : undefined}>
                  {page.title}
                  {page.name === "inbox" && <OpenQuestions />}
                </a>
              </li>
            ))}
        </ul>
      ))}
    </nav>
  );
}

/** The card of the chip that is pointed at, read when it is first needed. */
function PointedCard() {
  const [Card, setCard] = useState<ComponentType>();
  const wanted = pointed.value !== undefined;
  useEffect(() => {
    if (wanted && !Card) import("./lib/card").then((read) => setCard(() => read.Card), console.warn);
  }, [wanted]);
  return Card ? <Card /> : null;
}

const COUNT_EVERY_MS = 10_000;
const MOST_COUNTED = 10;

/** How many threads wait for a person. */
function OpenQuestions() {
  const options = { body: { limit: MOST_COUNTED }, headers: withoutPayload() };
  const { data } = useLive((stop) => pageOf("POST", "/interrupts/search", { ...options, signal: stop }), [], COUNT_EVERY_MS);
  if (!data?.items.length) return null;
  return <span class="count">{data.next ? `${MOST_COUNTED}+` : data.items.length}</span>;
}

const RELOAD_AGAIN_MS = 10_000;

/** Return whether a reload has not helped, so that another one would not either. */
function wasJustReloaded(): boolean {
  const [navigation] = performance.getEntriesByType("navigation") as PerformanceNavigationTiming[];
  return navigation?.type === "reload" && performance.now() < RELOAD_AGAIN_MS;
}

function CurrentPage() {
  const name = pageName.value;
  const found = PAGES.find((page) => page.name === name);
  const [shown, setShown] = useState<{ name: string; Component: ComponentType }>();
  const [broken, setBroken] = useState<string>();
  const [failure, reset] = useErrorBoundary((error) => console.error(error));
  useEffect(() => {
    let current = true;
    setBroken(undefined);
    document.title = found ? `${found.title} · Runlane` : "Runlane";
    if (failure) reset();
    found?.load().then(
      (module) => current && setShown({ name, Component: module.default }),
      (error) => {
        if (wasJustReloaded()) current && setBroken(String(error));
        else location.reload(); // the server has another version of the console by now
      },
    );
    return () => {
      current = false;
    };
  }, [name]);
  if (!found) {
    return (
      <Empty>
        There is no page “{name}”. <a href="#/overview">Overview</a>
      </Empty>
    );
  }
  if (failure || broken) return <Empty>This page failed: {String(failure ?? broken)}. Reload it, or open another one.</Empty>;
  if (shown?.name !== name) return <Skeleton rows={8} />;
  // A thing of its own for each path, so that nothing of the last run is shown in the next one.
  return <shown.Component key={place.value.path.join("/")} />;
}

function Keys({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keys" onClose={onClose}>
      <dl class="facts">
        {keys.value.map((key) => (
          <div key={`${key.press} ${key.does}`}>
            <dt>
              <kbd>{key.press}</kbd>
            </dt>
            <dd>{key.does}</dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
