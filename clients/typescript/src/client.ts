import { BusyError, InvalidRequestError, NotAllowedError, OneBarError, UnreachableError } from "./errors.js";
import type { Problem } from "./errors.js";
import type { components, operations } from "./schema.js";

type Schemas = components["schemas"];

/** What to show under a video, and where it comes from. */
export type Answer = Schemas["Answer"];
/** An event of the feed, as docs/events.md has it. */
export type Event =
  | Schemas["Video"]
  | Schemas["Removal"]
  | Schemas["Impression"]
  | Schemas["Search"]
  | Schemas["Exposure"]
  | Schemas["Click"]
  | Schemas["Engagement"]
  | Schemas["Deletion"];
type Stamped = "event_id" | "ts";
type WithoutStamp<E> = E extends Event ? Omit<E, Stamped> & Partial<Pick<E, Stamped>> : never;
/** An event whose id and time the client may fill in. */
export type NewEvent = WithoutStamp<Event>;
/** A video, and who watches it, if anybody in particular. */
export type Lookup = Schemas["PairRequest"];

/** How to reach the server. */
export interface Options {
  /** A key with the scopes that the calls need. */
  key?: string;
  /** Longest that one call takes, retries included, in milliseconds (10,000). */
  timeoutMs?: number;
  /** In place of the global `fetch`. */
  fetch?: typeof globalThis.fetch;
}

/** What may be asked of a lookup besides its videos; `budget_ms` is how long it may generate. */
export type LookupOptions = Partial<Omit<Schemas["BatchRequest"], "requests">>;

/** Requests of one call: the server takes no more at once. */
export const MAX_LOOKUPS = 256;
export const MAX_EVENTS = 1000;

const AGAIN = new Set([429, 502, 503, 504]);
const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 2000;

/**
 * A client of one OneBar server. It holds no state: share it.
 *
 * A broken connection and a server that has no room are tried again, with pauses that double, until
 * the call's time is over. An event keeps its id through retries, so that it counts once.
 */
export class OneBar {
  readonly #url: string;
  readonly #headers: Record<string, string>;
  readonly #timeoutMs: number;
  readonly #fetch: typeof globalThis.fetch;

  constructor(url: string, options: Options = {}) {
    this.#url = url.replace(/\/+$/, "");
    this.#headers = { Accept: "application/json" };
    if (options.key !== undefined) this.#headers["Authorization"] = `Bearer ${options.key}`;
    this.#timeoutMs = options.timeoutMs ?? 10_000;
    this.#fetch = options.fetch ?? globalThis.fetch;
  }

  /** The queries for one video and, where `userId` is given, one user. */
  async queries(videoId: string, userId?: string, options: LookupOptions = {}): Promise<Answer> {
    const lookup: Lookup = userId === undefined ? { video_id: videoId } : { video_id: videoId, user_id: userId };
    const [answer] = await this.queriesFor([lookup], options);
    if (answer === undefined) throw new OneBarError("the server answered no lookup");
    return answer;
  }

  /** The queries for many videos, in their order, in as few requests as it takes. */
  async queriesFor(lookups: readonly Lookup[], options: LookupOptions = {}): Promise<Answer[]> {
    const answers: Answer[] = [];
    for (let at = 0; at < lookups.length; at += MAX_LOOKUPS) {
      const body = { ...options, requests: lookups.slice(at, at + MAX_LOOKUPS) };
      const found = await this.#call<Schemas["BatchAnswer"]>("POST", "/v1/queries", body);
      answers.push(...found.results);
    }
    return answers;
  }

  /** Sends events, stamped with an id and the time where they have none; how many were taken. */
  async send(...events: readonly NewEvent[]): Promise<number> {
    const now = Date.now() / 1000;
    const stamped = events.map((event) => ({ event_id: crypto.randomUUID(), ts: now, ...event }));
    let accepted = 0;
    for (let at = 0; at < stamped.length; at += MAX_EVENTS) {
      const part = stamped.slice(at, at + MAX_EVENTS);
      accepted += (await this.#call<Schemas["Accepted"]>("POST", "/v1/events", part)).accepted;
    }
    return accepted;
  }

  /** What is known of a video (and a user), and the prompt that is made of it. */
  evidence(videoId: string, userId?: string): Promise<Schemas["EvidenceAnswer"]> {
    const query = new URLSearchParams({ video_id: videoId });
    if (userId !== undefined) query.set("user_id", userId);
    return this.#call("GET", `/v1/evidence?${query}`);
  }

  /** What people asked after a video. */
  anchors(videoId: string): Promise<Schemas["AnchorsAnswer"]> {
    return this.#call("GET", `/v1/videos/${encodeURIComponent(videoId)}/anchors`);
  }

  /** What a user searched for and tapped, newest first. */
  history(userId: string): Promise<Schemas["HistoryAnswer"]> {
    return this.#call("GET", `/v1/users/${encodeURIComponent(userId)}/history`);
  }

  /** Forgets a user. Needs the scope admin. */
  deleteUser(userId: string): Promise<Schemas["Deleted"]> {
    return this.#call("DELETE", `/v1/users/${encodeURIComponent(userId)}`);
  }

  async #call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const deadline = performance.now() + this.#timeoutMs;
    const init: RequestInit = { method, headers: this.#headers };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { ...this.#headers, "Content-Type": "application/json" };
    }
    for (let longest = FIRST_PAUSE_MS; ; longest = Math.min(2 * longest, LONGEST_PAUSE_MS)) {
      const left = deadline - performance.now();
      if (left <= 0) throw new UnreachableError(`no time left to ask for ${path}`);
      let failed: OneBarError;
      let least = 0;
      try {
        const response = await this.#fetch(this.#url + path, { ...init, signal: AbortSignal.timeout(Math.ceil(left)) });
        if (response.ok) return (await response.json()) as T;
        failed = await refusal(`${method} ${path}`, response);
        if (!AGAIN.has(response.status)) throw failed;
        least = retryAfterMs(response.headers.get("Retry-After"));
      } catch (error) {
        if (error instanceof OneBarError) throw error;
        if (error instanceof Error && error.name === "TimeoutError") {
          throw new UnreachableError(`no answer to ${path} in time`, undefined, undefined, { cause: error });
        }
        if (!(error instanceof TypeError)) throw error; // what fetch throws where no answer comes
        failed = new UnreachableError(`the server can't be reached: ${String(error)}`, undefined, undefined, {
          cause: error,
        });
      }
      const pause = least + Math.random() * longest;
      if (performance.now() + pause >= deadline) throw failed;
      await new Promise((resume) => setTimeout(resume, pause));
    }
  }
}

function retryAfterMs(header: string | null): number {
  if (header === null) return 0;
  const seconds = Number(header);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
}

async function refusal(what: string, response: Response): Promise<OneBarError> {
  let problem: Problem | undefined;
  try {
    const body: unknown = JSON.parse(await response.text());
    if (typeof body === "object" && body !== null && "status" in body) problem = body as Problem;
  } catch {
    // A proxy answered in the server's place.
  }
  const named = problem?.request_id ? ` (X-Request-ID ${problem.request_id})` : "";
  const message = `${what}: ${problem?.detail ?? problem?.title ?? `the server answered ${response.status}`}${named}`;
  const { status } = response;
  if (status === 401 || status === 403) return new NotAllowedError(message, status, problem);
  if (AGAIN.has(status)) return new BusyError(message, status, problem);
  if (status >= 400 && status < 500) return new InvalidRequestError(message, status, problem);
  return new OneBarError(message, status, problem);
}

/** The parameters of `GET /v1/queries`, for those who build the address themselves. */
export type QueryParameters = NonNullable<operations["get_queries"]["parameters"]["query"]>;
