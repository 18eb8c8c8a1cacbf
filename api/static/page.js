// The feed: one video, one bar. The bar under what is being watched changes by what its viewer does;
// what others do is told beside it, and shown when it is asked for.
import { ApiError, call, follow, forNow, kept, query, unique } from "/static/call.js";
import { Art } from "/static/art.js";
import { clearChange, showChange, showWhy } from "/static/why.js";
import { dress, element, paint, t } from "/static/words.js";

const POLL_MS = 3000;
const SETTLE_MS = 1500;
const MOST_KEPT = 100;
const $ = (id) => document.getElementById(id);
const art = new Art($("art"), $("played"));
const videos = new Map(); // id -> what the feed says of it
let order = []; // the ids in the order they are stepped through: never reshuffled
let fresh = []; // ids that came since
let at = -1;
let view = null; // what is being watched
let clockOffset = 0;
let mayWrite = true;
let users = [];

const params = new URLSearchParams(location.search);
const me = kept.get("me", "") || `you-${unique().slice(0, 6)}`;
kept.set("me", me);
let user = params.has("u") ? params.get("u") : kept.get("user", me);
const tappedHere = forNow.get("tapped", {});

const texts = (list) => list.map((each) => each.text);
const tapped = () => new Set(tappedHere[user]?.[view.id] || []);
const name = (id) => (id === me ? t("you") : id || t("nobody"));

function say(text, bad = false) {
  if ($("said").textContent !== text) $("said").textContent = text;
  $("said").classList.toggle("bad", bad);
}

function explain(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401 || error.status === 403) {
    $("key-row").hidden = false;
    say(t("need_key", { d: error.message }), true);
  } else {
    say(error instanceof ApiError ? error.message : t("away"), true);
  }
}

// Events ------------------------------------------------------------------------------------------

const event = (type, fields) => ({
  type, event_id: `page-${unique()}`, ts: Date.now() / 1000 + clockOffset, user_id: user || me, ...fields,
});
const send = (events) => call("/v1/events", { method: "POST", json: events });

// An impression, as a feed sends one before somebody sees a video: its queries are made meanwhile.
async function announce(id) {
  if (!mayWrite || !id) return;
  try {
    await send([event("impression", { video_id: id })]);
  } catch (error) {
    if (error.status === 403 || error.status === 401) mayWrite = false;
  }
}

// One view ----------------------------------------------------------------------------------------

const choose = (list) => texts(list).find((text) => !tapped().has(text)) ?? list[0]?.text ?? null;

function showBar(text, reason) {
  const changed = view.bar !== text;
  view.bar = text;
  $("bar").hidden = text === null;
  $("no-bar").hidden = text !== null;
  if (text === null) $("no-bar").textContent = reason;
  else $("bar-text").textContent = text;
  $("bar").classList.remove("sent", "changed");
  if (changed && text !== null) {
    void $("bar").offsetWidth;
    $("bar").classList.add("changed");
  }
}

function reasonOf(told) {
  return told.rejected ? t(`r_${told.rejection || "rejected"}`) : t("r_wait");
}

function showVideo(id) {
  const video = videos.get(id) || { title: "", caption: "", author: "", category: "" };
  const title = video.title || (video.caption || "").slice(0, 90) || video.summary || t("untitled");
  $("title").textContent = title;
  $("caption").textContent = video.caption === title ? "" : video.caption || "";
  $("author").textContent = video.author ? `@${video.author}` : "";
  $("face").textContent = (video.author || "?").slice(0, 1).toUpperCase();
  $("item").hidden = !video.item_title;
  $("item").textContent = video.item_title ? t("sells", { x: video.item_title }) : "";
  $("sticker").textContent = video.ocr || "";
  $("sticker").hidden = !video.ocr;
  art.show(id, video.category || "");
  document.title = `${title} · OneBar`;
}

function showPlace() {
  $("place").textContent = order.length ? `${at + 1} / ${order.length}` : "–";
  $("prev").disabled = at <= 0;
  $("next").disabled = at >= order.length - 1 && !fresh.length;
  $("fresh").hidden = !fresh.length;
  $("fresh").textContent = fresh.length === 1 ? t("fresh_1") : t("fresh_n", { n: fresh.length });
}

function keep() {
  kept.set("order", order.slice(0, MOST_KEPT));
  kept.set("user", user);
  const made = query({ v: order[at] });
  made.set("u", user);
  history.replaceState(null, "", `?${made}`);
}

async function open(place, direction = 0) {
  view?.controller.abort();
  at = place;
  const id = order[at];
  if (!id) return;
  const controller = new AbortController();
  const mine = view = {
    id, controller, list: [], bar: null, own: null, pending: null, told: null, changed: false,
    requestId: null, lookup: null, uploadedAt: null,
  };
  showVideo(id);
  showBar(null, t("r_wait"));
  clearChange();
  $("pending").hidden = true;
  showPlace();
  keep();
  if (direction) {
    $("screen").classList.remove("from-below", "from-above");
    void $("screen").offsetWidth;
    $("screen").classList.add(direction > 0 ? "from-below" : "from-above");
  }
  try {
    const began = performance.now();
    const answer = await call(`/v1/queries?${query({ video_id: id, user_id: user, budget_ms: "500" })}`);
    if (mine !== view) return;
    mine.lookup = { ms: performance.now() - began, source: answer.source };
    mine.requestId = answer.request_id;
    mine.list = answer.queries;
    if (mine.list.length) showBar(choose(mine.list));
    else showBar(null, reasonOf(answer));
  } catch (error) { explain(error); }
  if (mine !== view) return;
  follow(`/v1/watch?${query({ video_id: id, user_id: user })}`, controller.signal,
    (told) => mine === view && heard(told), explain);
  announce(order[at + 1]);
}

// What the server tells of the bar that is being watched.
function heard(told) {
  if (told.state === "away") { say(t("w_away", { d: told.detail || "" }), true); return; }
  if (told.state !== "told") return;
  const list = told.queries || [];
  const before = view.list;
  view.told = told;
  refreshWhy();
  const { own } = view;
  const because = told.because || [];
  if (own && because.some((change) => change.query && change.query.toLowerCase() === own.query.toLowerCase())) {
    settle(told);
    return;
  }
  if (view.uploadedAt !== null) {
    const ms = Math.round(performance.now() - view.uploadedAt);
    view.uploadedAt = null;
    say(list.length ? t("added", { ms }) : t("added_none"));
    if (!videos.get(view.id)?.known) loadVideos([view.id]).catch(explain);
  }
  if (view.bar === null) { // nothing under anybody's finger: first queries, or why there are none
    take(list, told);
    return;
  }
  if (JSON.stringify(texts(list)) === JSON.stringify(texts(before)) && !because.length) return;
  if (!view.changed && told.before) {
    showChange({ ...told, because, before: told.before, after: texts(list), own: null, tapped: tapped(), bar: null });
  }
  if (!list.length || $("live").checked) {
    take(list, told);
    return;
  }
  view.pending = told;
  const next = choose(list);
  $("pending").hidden = next === view.bar;
  $("pending-text").textContent = t("pending", { q: next });
}

function take(list, told) {
  view.list = list;
  view.pending = null;
  $("pending").hidden = true;
  if (list.length) {
    const next = choose(list);
    if (next !== view.bar && view.bar !== null) say(t("now_says", { q: next }));
    showBar(next);
  } else {
    showBar(null, reasonOf(told));
  }
}

// The viewer's own tap or search has had its effect: the bar changes.
function settle(told) {
  const { own } = view;
  clearTimeout(own.timer);
  view.own = null;
  view.changed = true;
  const before = texts(view.list);
  const list = told ? told.queries || [] : view.list;
  take(list, told || {});
  showChange({
    ...(told || {}), because: told?.because || [], before, after: texts(list),
    own: { ...own, ms: told ? performance.now() - own.began : null }, tapped: tapped(), bar: view.bar,
  });
  if (view.bar !== null) say(t("now_says", { q: view.bar }));
}

async function act(kind, text, events) {
  const mine = view;
  mine.own = { kind, query: text, began: performance.now() };
  $("bar").classList.toggle("sent", kind === "tap");
  try {
    await send(events);
  } catch (error) {
    mine.own = null;
    $("bar").classList.remove("sent");
    explain(error);
    return;
  }
  say(t("sent", { q: text }));
  // Without news of it the bar goes on all the same.
  if (mine.own) mine.own.timer = setTimeout(() => mine === view && mine.own && settle(null), SETTLE_MS);
}

function remember(text) {
  const mine = (tappedHere[user] ??= {});
  mine[view.id] = [...new Set([...(mine[view.id] || []), text])].slice(-20);
  forNow.set("tapped", tappedHere);
}

function tap() {
  const text = view?.bar;
  if (!text || view.own) return;
  const position = Math.max(0, texts(view.list).indexOf(text));
  const fields = { video_id: view.id, request_id: view.requestId };
  remember(text);
  act("tap", text, [
    event("exposure", { ...fields, queries: [{ query: text, position }] }),
    event("click", { ...fields, query: text, position }),
  ]);
}

function searchFor(text) {
  if (text && view) act("search", text, [event("search", { video_id: view.id, query: text })]);
}

let whyTimer = 0;
function refreshWhy() {
  clearTimeout(whyTimer);
  const mine = view;
  whyTimer = setTimeout(async () => {
    try {
      const found = await call(`/v1/explanation?${query({ video_id: mine.id, user_id: user })}`);
      if (mine === view) {
        mine.found = found;
        showWhy(found, mine.lookup);
      }
    } catch (error) { if (error.status !== 404) explain(error); }
  }, 60);
}

// The feed ----------------------------------------------------------------------------------------

async function loadVideos(ids) {
  for (let from = 0; from < ids.length; from += 50) {
    const { videos: found } = await call(`/v1/feed?${query({ video_id: ids.slice(from, from + 50) })}`);
    for (const video of found) {
      videos.set(video.video_id, { ...video, known: true });
      if (view?.id === video.video_id) showVideo(view.id);
    }
  }
}

async function poll() {
  const { videos: found } = await call("/v1/feed?limit=50");
  const known = new Set([...order, ...fresh]);
  for (const video of found) {
    videos.set(video.video_id, { ...video, known: true });
    if (!known.has(video.video_id)) fresh.push(video.video_id);
  }
  if (!order.length) {
    [order, fresh] = [fresh, []];
    if (order.length) await open(0);
  }
  showPlace();
  if (!order.length) say(t("empty_feed"));
}

async function loop() {
  for (;;) {
    try { if (!document.hidden) await poll(); } catch (error) { explain(error); }
    await new Promise((done) => setTimeout(done, POLL_MS));
  }
}

function step(by) {
  if (by > 0 && at >= order.length - 1) {
    if (fresh.length) takeFresh();
    else say(t("step_end"));
    return;
  }
  const place = at + by;
  if (place >= 0 && place < order.length) open(place, by);
}

function takeFresh() {
  order.splice(at + 1, 0, ...fresh);
  fresh = [];
  open(at + 1, 1);
}

// Users -------------------------------------------------------------------------------------------

function paintUsers() {
  const every = [...new Set([me, ...users, user].filter(Boolean)), ""];
  $("user").replaceChildren(...every.map((id) => {
    const option = element("option", name(id));
    option.value = id;
    option.selected = id === user;
    return option;
  }));
}

$("user").addEventListener("change", () => {
  user = $("user").value;
  if (order.length) open(at);
});

// What people do ----------------------------------------------------------------------------------

function toggleSearch(wanted) {
  $("search").hidden = !wanted;
  $("open-search").setAttribute("aria-expanded", String(wanted));
  (wanted ? $("typed") : $("open-search")).focus();
}

$("bar").addEventListener("click", tap);
$("prev").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("fresh").addEventListener("click", takeFresh);
$("apply").addEventListener("click", () => {
  const told = view?.pending;
  if (told) take(told.queries || [], told);
  $("bar").focus();
});
$("open-search").addEventListener("click", () => toggleSearch($("search").hidden));
$("search").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const text = $("typed").value.trim();
  $("typed").value = "";
  toggleSearch(false);
  searchFor(text);
});
$("live").checked = kept.get("live", false);
$("live").addEventListener("change", () => kept.set("live", $("live").checked));

document.addEventListener("keydown", (pressed) => {
  if (pressed.ctrlKey || pressed.metaKey || pressed.altKey) return;
  if (pressed.key === "Escape" && !$("search").hidden) { toggleSearch(false); return; }
  if (pressed.target.closest("input, textarea, select, .scroll, .prompt")) return;
  const does = {
    ArrowDown: () => step(1), j: () => step(1), ArrowUp: () => step(-1), k: () => step(-1),
    "/": () => toggleSearch(true), Enter: pressed.target === document.body ? tap : null,
  }[pressed.key];
  if (!does) return;
  pressed.preventDefault();
  does();
});

let wheeled = 0;
$("phone").addEventListener("wheel", (turned) => {
  turned.preventDefault();
  if (Math.abs(turned.deltaY) < 8 || performance.now() - wheeled < 450) return;
  wheeled = performance.now();
  step(Math.sign(turned.deltaY));
}, { passive: false });
let from = null;
$("screen").addEventListener("pointerdown", (down) => { from = down.isPrimary ? down.clientY : null; });
$("screen").addEventListener("pointerup", (up) => {
  if (from !== null && Math.abs(up.clientY - from) > 50) step(up.clientY < from ? 1 : -1);
  from = null;
});
$("screen").addEventListener("pointercancel", () => { from = null; });

$("add").addEventListener("submit", async (submitted) => {
  submitted.preventDefault();
  const form = new FormData($("add"));
  const id = `page-${unique()}`;
  const fields = { video_id: id, sensitive: form.has("sensitive") };
  for (const field of ["title", "caption", "item_title", "author"]) {
    const value = String(form.get(field)).trim();
    if (value) fields[field] = value;
  }
  const { user_id: nobody, ...video } = event("video", fields);
  try {
    const began = performance.now();
    await send([video, event("impression", { video_id: id })]);
    videos.set(id, { author: "", category: "", caption: "", ...fields });
    order.splice(at + 1, 0, id);
    $("add").reset();
    say(t("added_wait"));
    const opening = open(at + 1, 1);
    view.uploadedAt = began;
    await opening;
    $("phone").scrollIntoView({ block: "nearest" });
  } catch (error) { explain(error); }
});

$("key").addEventListener("change", () => {
  forNow.set("key", $("key").value.trim());
  mayWrite = true;
  start();
});

// Start -------------------------------------------------------------------------------------------

function again() {
  paintUsers();
  showPlace();
  if (!view) return;
  showVideo(view.id);
  if (view.bar === null) showBar(null, view.told ? reasonOf(view.told) : t("r_wait"));
  if (view.found) showWhy(view.found, view.lookup);
  if (!view.changed) clearChange();
}

async function start() {
  try {
    const page = await call("/v1/page");
    clockOffset = page.now - Date.now() / 1000;
    users = page.users;
    paintUsers();
    $("key-row").hidden = !forNow.get("key", "");
    const saved = [...new Set([...kept.get("order", []), params.get("v")].filter(Boolean))];
    await loadVideos(saved);
    order = saved.filter((id) => videos.has(id));
    const wanted = order.indexOf(params.get("v"));
    if (order.length) await open(Math.max(0, wanted));
  } catch (error) { explain(error); }
}

dress(again);
paint();
paintUsers();
await start();
loop();
