/** Requests to the server's API. Paths are relative to where the console is mounted. */
import { signal } from "@preact/signals";
import { headers, locked } from "./session";

/** The API's root, with a slash at its end: the console is one level below it. */
export const ROOT = new URL("../", document.baseURI);

/** When the server last answered as it should, and in two words what has been wrong since. */
export const contact = signal<{ at: number; lost: string | null }>({ at: Date.now(), lost: null });

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
  /** The server could not be reached, or cannot reach its database. */
  get passing(): boolean {
    return this.status === 0 || this.status >= 502 || this.status === 503;
  }
}

type Values = Record<string, string | number | boolean | null | undefined>;

export interface Options {
  query?: Values;
  body?: unknown;
  signal?: AbortSignal;
  headers?: Record<string, string>;
}

/** Return the path of a route with its parameters filled in: `path("/runs/{}", id)`. */
export function path(template: string, ...values: string[]): string {
  let at = 0;
  return template.replace(/\{\}/g, () => encodeURIComponent(values[at++] ?? ""));
}

/** Return the URL of *route*. Refuses names that a URL takes for a way up, so that it would be another route. */
export function urlOf(route: string, query: Values = {}): URL {
  const [, wrong] = /\/(\.\.?)(?=\/|$)/.exec(route) ?? [];
  if (wrong) throw new ApiError(422, "invalid_request", `“${wrong}” cannot be a name or an id: it has another meaning in a URL.`);
  const url = new URL(route.replace(/^\//, ""), ROOT);
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, String(value));
  }
  return url;
}

/** Send a request and return the answer, whose status is one of success. */
export async function request(method: string, route: string, options: Options = {}): Promise<Response> {
  const { query, body, signal: stop } = options;
  const url = urlOf(route, query);
  let answer: Response;
  try {
    answer = await fetch(url, {
      method,
      headers: {
        ...headers(),
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...options.headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: stop,
      credentials: "same-origin",
      cache: "no-store",
    });
  } catch (error) {
    if (stop?.aborted) throw error;
    contact.value = { ...contact.value, lost: "connection lost" };
    throw new ApiError(0, "unreachable", "The server does not answer. It may be restarting; this page tries again.");
  }
  if (answer.ok) {
    contact.value = { at: Date.now(), lost: null };
    return answer;
  }
  const error = await refusal(answer);
  if (answer.status === 401) locked.value = true;
  contact.value = error.passing ? { ...contact.value, lost: error.code === "store_unavailable" ? "database unavailable" : "server unavailable" } : { at: Date.now(), lost: null };
  throw error;
}

async function refusal(answer: Response): Promise<ApiError> {
  try {
    const { detail, code } = (await answer.json()) as { detail?: unknown; code?: string };
    return new ApiError(answer.status, code ?? "http", typeof detail === "string" ? detail : JSON.stringify(detail));
  } catch {
    return new ApiError(answer.status, "http", `The server answered ${answer.status} ${answer.statusText}.`);
  }
}

async function json<T>(answer: Response): Promise<T> {
  return (answer.status === 204 ? null : await answer.json()) as T;
}

export const get = async <T>(route: string, query?: Values, stop?: AbortSignal): Promise<T> =>
  json<T>(await request("GET", route, { query, signal: stop }));

export const post = async <T>(route: string, body: unknown = {}, stop?: AbortSignal): Promise<T> =>
  json<T>(await request("POST", route, { body, signal: stop }));

export const send = async <T>(method: string, route: string, options?: Options): Promise<T> =>
  json<T>(await request(method, route, options));

export interface Page<T> {
  items: T[];
  /** Where the next page begins; `null`: there is none. */
  next: string | null;
}

/** Ask for one page of a list, whose next one is named by the header X-Pagination-Next. */
export async function page<T>(method: string, route: string, options?: Options): Promise<Page<T>> {
  const answer = await request(method, route, options);
  return { items: (await answer.json()) as T[], next: answer.headers.get("X-Pagination-Next") };
}
