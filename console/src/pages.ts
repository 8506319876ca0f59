/** The pages: their names, their places in the navigation, and their parts, read when they are first opened. */
import type { ComponentType } from "preact";

export interface PageOf {
  name: string;
  title: string;
  /** Jumps here, after `g`. */
  key?: string;
  group: "work" | "things" | "server" | "none";
  /** What its reader has to be allowed, as in `may` of `GET /me`. */
  needs?: string;
  load: () => Promise<Loaded>;
}

type Loaded = { default: ComponentType };

const work = (name: keyof typeof import("./groups/work")) => async (): Promise<Loaded> => ({
  default: (await import("./groups/work"))[name],
});
const server = (name: keyof typeof import("./groups/server")) => async (): Promise<Loaded> => ({
  default: (await import("./groups/server"))[name],
});

export const PAGES: PageOf[] = [
  { name: "overview", title: "Overview", key: "o", group: "work", load: () => import("./pages/overview") },
  { name: "inbox", title: "Inbox", key: "i", group: "work", load: work("inbox") },
  { name: "runs", title: "Runs", key: "r", group: "work", load: work("runs") },
  { name: "threads", title: "Threads", key: "t", group: "work", load: work("threads") },
  { name: "playground", title: "Playground", key: "p", group: "work", load: work("playground") },
  { name: "assistants", title: "Assistants", key: "a", group: "things", load: server("assistants") },
  { name: "crons", title: "Crons", key: "c", group: "things", load: server("crons") },
  { name: "webhooks", title: "Webhooks", key: "h", group: "things", load: server("webhooks") },
  { name: "store", title: "Store", key: "s", group: "things", load: server("store") },
  { name: "workers", title: "Workers", key: "w", group: "server", needs: "workers.read", load: server("workers") },
  { name: "limits", title: "Limits", key: "l", group: "server", needs: "limits.read", load: server("limits") },
  { name: "usage", title: "Usage", key: "u", group: "server", load: server("usage") },
  { name: "audit", title: "Audit", key: "z", group: "server", needs: "audit.read", load: server("audit") },
  { name: "doctor", title: "Doctor", key: "d", group: "server", needs: "doctor.read", load: server("doctor") },
  { name: "settings", title: "Settings", key: "e", group: "server", needs: "settings.read", load: server("settings") },
  { name: "run", title: "Run", group: "none", load: () => import("./pages/run") },
  { name: "thread", title: "Thread", group: "none", load: work("thread") },
];
