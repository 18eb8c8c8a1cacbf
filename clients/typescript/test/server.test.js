// The client and a running server, its address in ONEBAR_URL.
import assert from "node:assert/strict";
import { test } from "node:test";

import { InvalidRequestError, OneBar } from "../dist/index.js";

const url = process.env.ONEBAR_URL;

test("events in, evidence and queries out", { skip: url === undefined && "ONEBAR_URL is not set" }, async () => {
  const bar = new OneBar(url, { timeoutMs: 60_000 });
  const video = `video-${crypto.randomUUID().slice(0, 8)}`;
  const users = ["ana", "ben", "cho"].map((name) => `${name}-${video}`);
  const sent = await bar.send(
    { type: "video", video_id: video, title: "How I sharpen a kitchen knife on a whetstone" },
    ...users.map((user_id) => ({ type: "search", video_id: video, user_id, query: "whetstone for knives" })),
  );
  assert.equal(sent, 4);

  let anchors = [];
  const until = performance.now() + 60_000;
  while (anchors.length === 0 && performance.now() < until) {
    ({ anchors } = await bar.anchors(video));
    await new Promise((resume) => setTimeout(resume, 100));
  }
  assert.equal(anchors[0].query, "whetstone for knives");
  const { history } = await bar.history(users[0]);
  assert.equal(history[0].query, "whetstone for knives");
  assert.match((await bar.evidence(video, users[0])).prompt, /whetstone/);

  const answer = await bar.queries(video, undefined, { budget_ms: 2000, k: 4 });
  assert.equal(answer.video_id, video);
  assert.ok(answer.queries.length <= 4);
  const both = await bar.queriesFor([{ video_id: video }, { video_id: "nowhere" }]);
  assert.deepEqual(both.map((one) => one.video_id), [video, "nowhere"]);
  await assert.rejects(bar.send({ type: "search", user_id: "u", query: "" }), InvalidRequestError);
});
