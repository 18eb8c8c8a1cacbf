// A feed service that stands between an app and OneBar: it asks for the bars of a page of videos in
// one call, and reports what was shown and tapped.
//
//     npm run build && node examples/feed-service.mjs        (ONEBAR_URL, ONEBAR_API_KEY, PORT)
//     curl 'http://127.0.0.1:8090/feed?user=u7&videos=v1,v2,v3'
//     curl -X POST 'http://127.0.0.1:8090/tap?user=u7&video=v1&query=trail+shoes&position=0'
import { createServer } from "node:http";

import { OneBar, OneBarError } from "../dist/index.js";

const bar = new OneBar(process.env.ONEBAR_URL ?? "http://127.0.0.1:8080", {
  ...(process.env.ONEBAR_API_KEY ? { key: process.env.ONEBAR_API_KEY } : {}),
  timeoutMs: 1000,
});

/** The page's videos with what each one's bar says; the bars are shown, so they are reported. */
async function feed(user, videos) {
  const answers = await bar.queriesFor(
    videos.map((video_id) => ({ video_id, user_id: user })),
    { budget_ms: 50 },
  );
  const shown = answers.filter((answer) => answer.queries.length > 0);
  await bar.send(
    ...videos.map((video_id) => ({ type: "impression", video_id, user_id: user })),
    ...shown.map((answer) => ({
      type: "exposure",
      video_id: answer.video_id,
      user_id: user,
      request_id: answer.request_id,
      queries: answer.queries.slice(0, 1).map((query, position) => ({ query: query.text, position })),
    })),
  );
  return answers.map((answer) => ({ video: answer.video_id, bar: answer.queries[0]?.text ?? null }));
}

const routes = {
  "GET /feed": (query) => feed(query.get("user"), (query.get("videos") ?? "").split(",").filter(Boolean)),
  "POST /tap": (query) =>
    bar.send({
      type: "click",
      video_id: query.get("video"),
      user_id: query.get("user"),
      query: query.get("query"),
      position: Number(query.get("position") ?? 0),
    }),
};

const server = createServer(async (request, response) => {
  const url = new URL(request.url, "http://feed");
  const route = routes[`${request.method} ${url.pathname}`];
  let status = 404;
  let body = { error: "GET /feed or POST /tap" };
  if (route !== undefined) {
    try {
      [status, body] = [200, await route(url.searchParams)];
    } catch (error) {
      if (!(error instanceof OneBarError)) throw error;
      // A feed without its bars is still a feed.
      [status, body] = [error.status === 422 ? 422 : 502, { error: error.message }];
    }
  }
  response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(body));
});
server.listen(Number(process.env.PORT ?? 8090), "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
process.on("SIGTERM", () => server.close());
