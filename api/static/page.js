// The live feed. Every text from outside goes in as text (textContent), never as markup.
const POLL_MS = 2000;
const LIMIT = 12;
const $ = (id) => document.getElementById(id);
const cards = new Map(); // video id -> the card's element, its data and what was done with it
let key = sessionStorage.getItem("onebar-key") || "";
let paused = false;

class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

async function api(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (key) headers["X-API-Key"] = key;
  const response = await fetch(path, {
    ...options, headers, cache: "no-store", signal: AbortSignal.timeout(8000),
  });
  if (response.ok) return response.status === 204 ? null : response.json();
  let detail = response.statusText;
  try { detail = (await response.json()).detail || detail; } catch { /* the status says enough */ }
  throw new ApiError(response.status, detail);
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(text, bad = false) {
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function explain(error) {
  if (error.status === 401 || error.status === 403) {
    $("key-row").hidden = false;
    say(`${error.message} Enter a key above.`, true);
  } else if (error instanceof ApiError) {
    say(error.message, true);
  } else {
    say("The API does not answer. Trying again …", true);
  }
}

// crypto.randomUUID exists only on https and localhost.
const unique = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) =>
  part.toString(16).padStart(8, "0")).join("");
const user = () => $("user").value.trim();
const withUser = (parameters) => {
  const query = new URLSearchParams(parameters);
  if (user()) query.set("user_id", user());
  return query;
};

function ago(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  return s < 3600 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
}

const REASONS = {
  deadline: "the time was up", overload: "too much to do", store_unavailable: "Redis is away",
  store_failed: "Redis failed", not_generating: "nothing cached yet",
  model_unavailable: "the model is still loading", engine_failed: "the model failed",
  sensitive: "sensitive video", unknown_video: "unknown video",
};

function source(answer) {
  if (answer.rejected) return "rejected: this video carries no query";
  if (answer.source === "fallback") {
    return `fallback: ${answer.fallback} (${REASONS[answer.reason] || answer.reason})`;
  }
  return `${answer.source} · ${ago(answer.age_s)} old · ${answer.model}`;
}

function event(type, video, fields) {
  return {
    type, event_id: `page-${unique()}`, ts: Date.now() / 1000,
    video_id: video, user_id: user() || "page-visitor", ...fields,
  };
}

const send = (events) => api("/v1/events", {
  method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(events),
});

async function tap(card, position) {
  const { answer, video_id: video } = card.data;
  const request = { request_id: answer.request_id };
  const events = [];
  if (!card.exposed.has(answer.evidence_digest)) {
    const queries = answer.queries.map((query, at) => ({ query: query.text, position: at }));
    events.push(event("exposure", video, { queries, ...request }));
  }
  const query = answer.queries[position].text;
  events.push(event("click", video, { query, position, ...request }));
  await send(events);
  card.exposed.add(answer.evidence_digest);
  card.tapped.add(query);
  renderBar(card);
  say(`Click on “${query}” is in Kafka; its anchor is on the way.`);
  for (const wait of [150, 600, 1500]) {
    await new Promise((done) => setTimeout(done, wait));
    const { anchors } = await api(`/v1/videos/${encodeURIComponent(video)}/anchors`);
    renderAnchors(card, anchors.slice(0, 6));
  }
}

function renderAnchors(card, anchors) {
  const text = anchors.map((anchor) => `${anchor.query} (${anchor.weight.toFixed(1)})`).join(" · ");
  card.part.anchors.textContent = text ? `Searched after it: ${text}` : "No anchors yet";
}

function renderBar(card) {
  const { answer } = card.data;
  const focused = card.part.bar.contains(document.activeElement)
    ? document.activeElement.dataset.position : null;
  const items = answer.queries.map((query, position) => {
    const item = element("li");
    const button = element("button", query.text);
    button.type = "button";
    button.dataset.position = position;
    button.title = `score ${query.score.toFixed(3)}`;
    if (card.tapped.has(query.text)) button.setAttribute("aria-pressed", "true");
    item.append(button);
    return item;
  });
  if (!items.length) items.push(element("li", "no search bar", "none"));
  card.part.bar.replaceChildren(...items);
  if (focused !== null) card.part.bar.querySelector(`[data-position="${Number(focused)}"]`)?.focus();
}

function render(card, data) {
  const { part } = card;
  const before = card.data;
  card.data = data;
  part.h2.textContent = data.title || data.caption.slice(0, 80) || data.summary || data.video_id;
  part.meta.textContent = [data.author, data.category, data.video_id].filter(Boolean).join(" · ");
  part.caption.textContent = data.caption === part.h2.textContent ? "" : data.caption;
  part.source.textContent = source(data.answer);
  renderAnchors(card, data.anchors);
  const same = before && JSON.stringify(before.answer.queries) === JSON.stringify(data.answer.queries);
  if (!same) {
    renderBar(card);
    card.root.classList.remove("fresh");
    void card.root.offsetWidth;
    card.root.classList.add("fresh");
  }
}

async function showEvidence(card) {
  const { evidence, why } = card.part;
  const open = evidence.hidden;
  evidence.hidden = !open;
  why.setAttribute("aria-expanded", String(open));
  if (!open) return;
  const found = await api(`/v1/evidence?${withUser({ video_id: card.data.video_id })}`);
  const list = element("dl");
  const rows = [
    ["T, text", found.text], ["M, summary", found.summary],
    ["A, anchors", found.anchors.join(" | ")], ["H, history", found.history.join(" | ")],
    ["Model", found.model || "none here"], ["Digest", found.digest || "–"],
  ];
  for (const [name, value] of rows) list.append(element("dt", name), element("dd", value || "–"));
  list.append(element("dt", "Prompt"));
  const prompt = element("dd");
  prompt.append(element("pre", found.prompt));
  list.append(prompt);
  evidence.replaceChildren(list);
}

async function renew(card) {
  await send([event("impression", card.data.video_id, {})]);
  say("The impression is in Kafka; the generator takes it from there.");
}

const guarded = (action) => () => action().catch(explain);

function make() {
  const root = $("card").content.firstElementChild.cloneNode(true);
  const part = {};
  for (const name of ["h2", ".meta", ".caption", ".bar", ".source", ".anchors", ".renew", ".why",
    ".evidence"]) {
    part[name.replace(".", "")] = root.querySelector(name);
  }
  const card = { root, part, data: null, exposed: new Set(), tapped: new Set() };
  part.why.addEventListener("click", guarded(() => showEvidence(card)));
  part.renew.addEventListener("click", guarded(() => renew(card)));
  part.bar.addEventListener("click", (clicked) => {
    const button = clicked.target.closest("button");
    if (button) tap(card, Number(button.dataset.position)).catch(explain);
  });
  return card;
}

async function poll() {
  const { videos } = await api(`/v1/feed?${withUser({ limit: LIMIT })}`);
  const list = $("feed");
  const kept = new Set(videos.map((video) => video.video_id));
  for (const [id, card] of cards) {
    if (kept.has(id)) continue;
    if (card.root.contains(document.activeElement)) list.focus();
    card.root.remove();
    cards.delete(id);
  }
  videos.forEach((video, at) => {
    if (!cards.has(video.video_id)) cards.set(video.video_id, make());
    const card = cards.get(video.video_id);
    render(card, video);
    // A card that is being used stays where it is.
    const used = card.root.contains(document.activeElement) || !card.part.evidence.hidden;
    if (list.children[at] !== card.root && !(used && card.root.isConnected)) {
      list.insertBefore(card.root, list.children[at] || null);
    }
  });
  const at = new Date().toLocaleTimeString();
  const count = `${videos.length} ${videos.length === 1 ? "video" : "videos"}`;
  say(videos.length ? `${count}, as of ${at}` : "No video has queries yet: send an impression.");
}

let timer = 0;
async function loop() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  try { await poll(); } catch (error) { explain(error); }
  clearTimeout(timer);
  timer = setTimeout(loop, POLL_MS);
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").textContent = paused ? "Go on" : "Pause";
  $("pause").setAttribute("aria-pressed", String(paused));
  loop();
});
$("controls").addEventListener("submit", (submitted) => submitted.preventDefault());
$("user").addEventListener("change", loop);
$("key").addEventListener("change", () => {
  key = $("key").value.trim();
  sessionStorage.setItem("onebar-key", key);
  loop();
});
document.addEventListener("visibilitychange", loop);
loop();
