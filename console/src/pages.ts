/** The pages: their names, their places in the navigation, and their parts, read when they are first opened. */
import type { ComponentType } from "preact";

export interface PageOf {
  name: string;
  title: string;
  /** Jumps here, after `g`. */
  key?: string;
  group: "work" | "things" | "server" | "none";
  /** Shown to operators, and where nobody is asked who they are. */
  operators?: true;
  load: () => Promise<{ default: ComponentType }>;
}

/** Pages of the server are small and much alike: together they are smaller, and one more is open at once. */
const ofServer = (name: keyof typeof import("./pages/server")) => async () => ({ default: (await import("./pages/server"))[name] });

export const PAGES: PageOf[] = [
  { name: "overview", title: "Overview", key: "o", group: "work", load: () => import("./pages/overview") },
  { name: "inbox", title: "Inbox", key: "i", group: "work", load: () => import("./pages/inbox") },
  { name: "runs", title: "Runs", key: "r", group: "work", load: () => import("./pages/runs") },
  { name: "threads", title: "Threads", key: "t", group: "work", load: () => import("./pages/threads") },
  { name: "playground", title: "Playground", key: "p", group: "work", load: () => import("./pages/playground") },
  { name: "assistants", title: "Assistants", key: "a", group: "things", load: () => import("./pages/assistants") },
  { name: "crons", title: "Crons", key: "c", group: "things", load: ofServer("Crons") },
  { name: "webhooks", title: "Webhooks", key: "h", group: "things", load: ofServer("Webhooks") },
  { name: "store", title: "Store", key: "s", group: "things", load: () => import("./pages/store") },
  { name: "workers", title: "Workers", key: "w", group: "server", operators: true, load: ofServer("Workers") },
  { name: "limits", title: "Limits", key: "l", group: "server", operators: true, load: ofServer("Limits") },
  { name: "usage", title: "Usage", key: "u", group: "server", load: ofServer("Usage") },
  { name: "audit", title: "Audit", key: "z", group: "server", operators: true, load: ofServer("Audit") },
  { name: "doctor", title: "Doctor", key: "d", group: "server", operators: true, load: ofServer("Doctor") },
  { name: "settings", title: "Settings", key: "e", group: "server", operators: true, load: ofServer("Settings") },
  { name: "run", title: "Run", group: "none", load: () => import("./pages/run") },
  { name: "thread", title: "Thread", group: "none", load: () => import("./pages/thread") },
];
