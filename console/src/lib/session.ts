/**
 * Who uses the console. A key or token stays in this tab, and in other tabs of the console that ask for it; no cookie
 * carries it, so that no other page can use it.
 */
import { computed, signal } from "@preact/signals";

export interface Credential {
  kind: "key" | "bearer";
  secret: string;
}

/** What `GET /me` answers. */
export interface Me {
  identity: string | null;
  owner: string | null;
  operator: boolean;
  scopes: string[];
  sees_payload: boolean;
  sees_logs: boolean;
  /** What is allowed, as `<resource>.<action>`. */
  may: string[];
}

const STORED = "runlane.credential";
const ASK_MS = 200;

export const credential = signal<Credential | null>(stored());
export const me = signal<Me | null>(null);
/** Whether the server refused what it got, so that somebody has to log in. */
export const locked = signal(false);
export const seesLogs = computed(() => me.value?.sees_logs ?? true);
export const seesPayload = computed(() => me.value?.sees_payload ?? true);

/** Return whether the page offers what *action*, such as `threads.delete`, stands for. */
export const permits = (action: string): boolean => me.value?.may.includes(action) ?? true;

function stored(): Credential | null {
  const text = sessionStorage.getItem(STORED);
  return text ? (JSON.parse(text) as Credential) : null;
}

function keep(given: Credential | null): void {
  credential.value = given;
  if (given) sessionStorage.setItem(STORED, JSON.stringify(given));
  else sessionStorage.removeItem(STORED);
}

const tabs = new BroadcastChannel("runlane.console");
tabs.addEventListener("message", ({ data }: MessageEvent<{ asks?: true; given?: Credential; leaves?: true }>) => {
  if (data.asks && credential.value) tabs.postMessage({ given: credential.value });
  if (data.given && !credential.value) keep(data.given);
  if (data.leaves) logOut({ tell: false });
});

/** Take the credential of another tab, if one has it. */
export async function askOtherTabs(): Promise<void> {
  if (credential.value) return;
  tabs.postMessage({ asks: true });
  await new Promise<void>((done) => {
    const stop = credential.subscribe((value) => value && done());
    setTimeout(() => (stop(), done()), ASK_MS);
  });
}

export function logIn(given: Credential): void {
  keep(given);
}

/** Give the credential, which the server has taken, to other tabs that ask somebody for one. */
export function share(): void {
  if (credential.value) tabs.postMessage({ given: credential.value });
}

export function logOut({ tell = true } = {}): void {
  keep(null);
  me.value = null;
  locked.value = true;
  if (tell) tabs.postMessage({ leaves: true });
}

export function headers(): Record<string, string> {
  const given = credential.value;
  if (!given) return {};
  return given.kind === "key" ? { "X-Api-Key": given.secret } : { Authorization: `Bearer ${given.secret}` };
}
