// What the client does with answers, refusals and silence; no server needed.
import assert from "node:assert/strict";
import { test } from "node:test";

import { BusyError, InvalidRequestError, NotAllowedError, OneBar, UnreachableError } from "../dist/index.js";

const json = (status, body, headers = {}) =>
  new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json", ...headers } });

/** A client whose requests are answered in turn, and what it asked. */
function scripted(replies, options = {}) {
  const asked = [];
  const fetch = async (url, init) => {
    asked.push({ url, ...init, body: init.body === undefined ? undefined : JSON.parse(init.body) });
    const reply = replies[Math.min(asked.length, replies.length) - 1];
    if (reply instanceof Error) throw reply;
    return typeof reply === "function" ? reply(init) : reply.clone();
  };
  return { bar: new OneBar("http://bar/", { fetch, ...options }), asked };
}

test("a lookup is one request and one answer", async () => {
  const answer = { queries: [{ text: "trail shoes", score: -0.1 }], source: "cache" };
  const { bar, asked } = scripted([json(200, { results: [answer] })], { key: "secret" });
  assert.deepEqual(await bar.queries("v1", "u1", { k: 3, exclude: ["socks"] }), answer);
  assert.equal(asked[0].url, "http://bar/v1/queries");
  assert.deepEqual(asked[0].body, { k: 3, exclude: ["socks"], requests: [{ video_id: "v1", user_id: "u1" }] });
  assert.equal(asked[0].headers.Authorization, "Bearer secret");
});

test("many lookups keep their order over several requests", async () => {
  const { bar, asked } = scripted([
    (init) => json(200, { results: JSON.parse(init.body).requests.map((one) => ({ video_id: one.video_id })) }),
  ]);
  const lookups = Array.from({ length: 600 }, (_, i) => ({ video_id: `v${i}` }));
  const answers = await bar.queriesFor(lookups);
  assert.deepEqual(answers.map((one) => one.video_id), lookups.map((one) => one.video_id));
  assert.deepEqual(asked.map((one) => one.body.requests.length), [256, 256, 88]);
});

test("an event keeps its id through retries", async () => {
  const { bar, asked } = scripted([
    json(503, { status: 503, title: "Kafka is away" }, { "Retry-After": "0" }),
    new TypeError("fetch failed"),
    json(202, { accepted: 1 }),
  ]);
  assert.equal(await bar.send({ type: "search", user_id: "u", query: "boots" }), 1);
  assert.equal(asked.length, 3);
  const ids = new Set(asked.map((one) => one.body[0].event_id));
  assert.equal(ids.size, 1);
  assert.ok(Math.abs(asked[0].body[0].ts - Date.now() / 1000) < 5);
});

test("what is given is not stamped over", async () => {
  const { bar, asked } = scripted([json(202, { accepted: 1 })]);
  await bar.send({ type: "search", event_id: "e1", ts: 5, user_id: "u", query: "boots" });
  assert.deepEqual(asked[0].body, [{ type: "search", event_id: "e1", ts: 5, user_id: "u", query: "boots" }]);
});

test("a refusal says what is wrong, and is not tried again", async () => {
  const problem = { status: 422, title: "Invalid", detail: "no query", errors: [{ index: 0, detail: "no query" }], request_id: "5f2d" };
  const { bar, asked } = scripted([json(422, problem)]);
  await assert.rejects(bar.send({ type: "search", user_id: "u", query: "" }), (error) => {
    assert.ok(error instanceof InvalidRequestError);
    assert.equal(error.faults[0].index, 0);
    assert.match(error.message, /no query \(X-Request-ID 5f2d\)/);
    return true;
  });
  assert.equal(asked.length, 1);
  const closed = scripted([json(401, { status: 401, title: "A key is needed" })]);
  await assert.rejects(closed.bar.history("u"), NotAllowedError);
});

test("no call outlives its time", async () => {
  const started = performance.now();
  const busy = scripted([json(503, { status: 503, title: "full" }, { "Retry-After": "60" })], { timeoutMs: 300 });
  await assert.rejects(busy.bar.history("u"), BusyError);
  const silent = new OneBar("http://bar", {
    timeoutMs: 200,
    fetch: (_, init) =>
      new Promise((_, reject) => {
        // A real request keeps the process alive; so does this.
        const open = setTimeout(() => {}, 10_000);
        init.signal.addEventListener("abort", () => (clearTimeout(open), reject(init.signal.reason)));
      }),
  });
  await assert.rejects(silent.history("u"), UnreachableError);
  assert.ok(performance.now() - started < 2000);
});

test("a proxy's page is an error like another", async () => {
  const { bar } = scripted([new Response("<h1>502</h1>", { status: 502 })], { timeoutMs: 100 });
  await assert.rejects(bar.anchors("v/1?"), BusyError);
  const { bar: odd, asked } = scripted([json(200, {})]);
  await odd.anchors("v/1?");
  assert.equal(asked[0].url, "http://bar/v1/videos/v%2F1%3F/anchors");
});
