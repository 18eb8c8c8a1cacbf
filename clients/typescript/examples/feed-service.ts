// A feed service that stands between an app and OneBar. The same in Python: examples/feed_service.py.
//
//     npm run build && node dist/examples/feed-service.js        (ONEBAR_URL, ONEBAR_API_KEY, PORT, VIDEOS)
//
//     GET  /feed?user=u7&page=0     a page of videos, each with its bar, or null
//     POST /seen                    {"user": "u7", "video": "knife", "bar": the bar as /feed gave it}
//     POST /tap                     the same, when it was tapped
//     POST /search                  {"user": "u7", "video": "knife", "query": "sharp knives"}
//     GET  /stats                   where bars came from, how many events wait or were given up
//
// What it shows: bars have a deadline, and a feed without them is still a feed; the videos of the next page are
// announced, so that their queries are ready; events are sent behind the app's back, in batches, and kept while
// OneBar is away.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

import { InvalidRequestError, OneBar, OneBarError } from "onebar-client";
import type { NewEvent } from "onebar-client";

const PAGE = 3;
const BUDGET_MS = 60; // what OneBar may spend on generating; after that it answers with what it has
const DEADLINE_MS = 300; // what the app waits for bars, whatever happens to OneBar or to the network
const ROOM = 10_000; // events that wait at most; beyond it the oldest are given up

type Video = { video_id: string; title?: string };
type Bar = { query: string; request_id: string; propensity?: number };
type Stamped = NewEvent & { event_id: string };

const url = process.env["ONEBAR_URL"] ?? "http://127.0.0.1:8080";
const key = process.env["ONEBAR_API_KEY"];
const access = key === undefined ? {} : { key };
const lookups = new OneBar(url, { ...access, timeoutMs: DEADLINE_MS });
const pause = (ms: number) => new Promise((resume) => setTimeout(resume, ms));

/** Events on their way. An event keeps its id from here on: sent twice, it counts once. */
class Outbox {
  lost = 0;
  #waiting: Stamped[] = [];
  #sending: Promise<void> | undefined;
  readonly #client = new OneBar(url, { ...access, timeoutMs: 5000 });

  get length(): number {
    return this.#waiting.length;
  }

  /** Never waits, never fails. */
  put(...events: NewEvent[]): void {
    const ts = Date.now() / 1000;
    this.#waiting.push(...events.map((event) => ({ event_id: crypto.randomUUID(), ts, ...event })));
    this.lost += this.#waiting.splice(0, Math.max(0, this.#waiting.length - ROOM)).length;
    this.#sending ??= this.#send().finally(() => (this.#sending = undefined));
  }

  async #send(): Promise<void> {
    await pause(0); // what else is put in this turn goes along
    while (this.#waiting.length > 0) await this.flush();
  }

  /** Sends up to 500 of what waits. While OneBar is away all of it waits. */
  async flush(): Promise<void> {
    let batch = this.#waiting.slice(0, 500);
    try {
      await this.#client.send(...batch);
    } catch (error) {
      if (!(error instanceof OneBarError)) throw error;
      if (!(error instanceof InvalidRequestError)) {
        console.error(`${this.#waiting.length} events wait: ${error.message}`);
        await pause(1000);
        return;
      }
      const wrong = new Set(error.faults.map((fault) => fault.index)); // of such a request none was taken
      for (const fault of error.faults) console.error(`event ${fault.index} is none: ${fault.detail}`);
      if (wrong.size > 0) batch = batch.filter((_, at) => wrong.has(at));
      this.lost += batch.length;
    }
    const done = new Set(batch);
    this.#waiting = this.#waiting.filter((event) => !done.has(event));
  }
}

const source = process.env["VIDEOS"] ?? new URL("../../../../examples/videos.jsonl", import.meta.url);
const videos = new Map<string, Video>(
  readFileSync(source, "utf-8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Video)
    .map((video) => [video.video_id, video]),
);
const outbox = new Outbox();
const sources: Record<string, number> = {};

function count(name: string, times = 1): void {
  sources[name] = (sources[name] ?? 0) + times;
}

/** The videos of a page with their bars; the next page's videos are announced. */
async function feed(user: string, page: number) {
  const on = (number: number) => [...videos.keys()].slice(number * PAGE, (number + 1) * PAGE);
  const bars = await barsOf(user, on(page));
  outbox.put(...on(page + 1).map((video_id) => ({ type: "impression" as const, video_id, user_id: user })));
  return { videos: on(page).map((video) => ({ ...videos.get(video), bar: bars.get(video) ?? null })) };
}

async function barsOf(user: string, shown: string[]): Promise<Map<string, Bar>> {
  const bars = new Map<string, Bar>();
  if (shown.length === 0) return bars;
  try {
    const pairs = shown.map((video_id) => ({ video_id, user_id: user }));
    for (const answer of await lookups.queriesFor(pairs, { k: 1, budget_ms: BUDGET_MS })) {
      // A fallback went through the same gate. It may be shown; it is not what was asked for.
      count(answer.fallback ?? answer.source);
      const [first] = answer.queries;
      if (first === undefined) continue; // rejected, or nothing is known yet: a video without a bar
      const { request_id } = answer;
      const told = first.propensity === undefined ? {} : { propensity: first.propensity };
      bars.set(answer.video_id, { query: first.text, request_id, ...told });
    }
  } catch (error) {
    if (!(error instanceof OneBarError)) throw error;
    count("none", shown.length);
    console.error(`no bars: ${error.message}`);
  }
  return bars;
}

/** What the app said is wrong. */
class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

type Body = { user?: unknown; video?: unknown; query?: unknown; bar?: Partial<Bar> };

function text(value: unknown, name: string): string {
  if (typeof value !== "string" || value === "") throw new Refusal(422, `${name} is missing`);
  return value;
}

function known(value: unknown): string {
  const video = text(value, "video");
  if (!videos.has(video)) throw new Refusal(404, `there is no video '${video}'`);
  return video;
}

function reaction(body: Body) {
  const { query, request_id, propensity } = body.bar ?? {};
  const who = { video_id: known(body.video), user_id: text(body.user, "user") };
  return { query: text(query, "bar.query"), propensity, who: { ...who, request_id: text(request_id, "bar.request_id") } };
}

const posts: Record<string, (body: Body) => NewEvent> = {
  "/seen": (body) => {
    const { query, propensity, who } = reaction(body);
    const told = propensity === undefined || propensity === null ? {} : { propensity };
    return { type: "exposure", ...who, queries: [{ query, position: 0, ...told }] };
  },
  "/tap": (body) => {
    const { query, who } = reaction(body);
    return { type: "click", ...who, query, position: 0 };
  },
  "/search": (body) => {
    const after = body.video === undefined || body.video === null ? {} : { video_id: known(body.video) };
    return { type: "search", user_id: text(body.user, "user"), query: text(body.query, "query"), ...after };
  },
};

async function bodyOf(request: IncomingMessage): Promise<Body> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  try {
    return Object(JSON.parse(Buffer.concat(parts).toString())) as Body;
  } catch {
    throw new Refusal(422, "expected JSON");
  }
}

async function answer(request: IncomingMessage): Promise<[number, unknown]> {
  const { pathname, searchParams } = new URL(request.url ?? "/", "http://feed");
  if (request.method === "GET" && pathname === "/feed") {
    const page = Number(searchParams.get("page") ?? 0);
    if (!Number.isSafeInteger(page) || page < 0) throw new Refusal(422, "page counts from 0");
    return [200, await feed(text(searchParams.get("user"), "user"), page)];
  }
  if (request.method === "GET" && pathname === "/stats") {
    return [200, { bars: sources, waiting: outbox.length, lost: outbox.lost }];
  }
  const post = request.method === "POST" ? posts[pathname] : undefined;
  if (post === undefined) throw new Refusal(404, "GET /feed, /stats; POST /seen, /tap, /search");
  outbox.put(post(await bodyOf(request)));
  return [202, null];
}

const server = createServer((request, response) => {
  const reply = (status: number, body: unknown) =>
    response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
  answer(request).then(
    ([status, body]) => reply(status, body),
    (error: unknown) => {
      if (error instanceof Refusal) return reply(error.status, { detail: error.message });
      console.error(error);
      return reply(500, { detail: "a bug" });
    },
  );
});
outbox.put(...[...videos.values()].map((video) => ({ type: "video" as const, ...video })));
server.listen(Number(process.env["PORT"] ?? 8090), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
});
process.on("SIGTERM", () => {
  server.close();
  void Promise.race([outbox.flush(), pause(2000)]).then(() => process.exit(0)); // the last ones
});
