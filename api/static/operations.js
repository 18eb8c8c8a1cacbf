// The operations page: what Prometheus scrapes, as it is now, and what an operator does about it.
import { ApiError, call, forNow } from "/static/call.js";
import { add, ago, dress, element, paint, t } from "/static/words.js";

add({
  en: {
    skip_main: "Skip to the content", admin_key: "Key with the scope admin", parts: "Parts and what they stand on", now: "Now",
    sources: "Answers by source", latency: "Latency", events: "Events by type", batches: "Batch sizes", held: "Held back and rejected",
    ctr: "Click rate by whose words the query is in", lag: "Lag",
    ctr_note: "Of the queries shown under the latest videos, since each video began.",
    rules: "Rules", add_rule: "Add a rule", rule_id: "Name", rule_action: "What it does", do_block: "hold back", do_allow: "allow",
    do_pin: "pin", do_learn: "hold back, but learn from", rule_kind: "About", kind_query: "this query", kind_word: "queries with these words",
    kind_pattern: "queries like this pattern", rule_text: "Text", rule_video: "Only under the video", rule_who: "Who decides", rule_why: "Why",
    put_rule: "Put it in force", letters: "Dead letters", look: "Look", replay: "Send back those chosen", drop: "Drop those chosen",
    models: "Models", rollback: "Back to the one before", up_fine: "fine", down: "does not answer",
    events_s: "Events a second", answers_s: "Answers a second", p50: "Answer, half within", p99: "Answer, 99 % within", fresh: "Event to state, 99 %",
    cached: "To the bar, 99 %", lag_all: "Records behind", letters_all: "Set aside since start", memory: "Memory of all", waiting: "Prompts waiting",
    s_cache: "cache", s_generated: "generated", "s_fallback/video": "fallback: the video's", "s_fallback/anchors": "fallback: anchors", "s_fallback/empty": "fallback: empty",
    l_what: "What", l_half: "Half", l_90: "90 %", l_99: "99 %", l_count: "Count", "l_/v1/queries": "lookup (HTTP)", l_fresh: "event → state",
    l_cached: "impression → cache", l_apply: "fold into Redis", l_batch: "impression batch", l_engine: "model run",
    b_stream: "events folded together", b_engine: "prompts run together", b_mean: "{n} on average",
    h_rule: "by a rule", h_personal: "personal data", h_harmful: "harmful", rejects: "model calls refused or late", i_late: "impressions too late",
    none: "none", w_video: "the video's own words", w_both: "some of both", w_people: "people's or the model's", rate_of: "{c} of {e}",
    r_text: "Text", r_scope: "Where", r_by: "Who and why", no_rules: "No rules.", take_back: "Take back", everything: "everything",
    rule_in: "The rule {r} holds everywhere.", rule_out: "The rule {r} is taken back.",
    letters_of: "({n} not settled)", no_letters: "None.", look_inside: "Look inside", mend: "Send back as it stands here", done_letters: "{n} done.", refused: "{id} was not sent: {why}",
    m_name: "Checkpoint", m_made: "Made", m_size: "Size", m_live: "Promoted", m_do: "", serving: "Serving here: {m}", no_registry: "No registry is followed; set ONEBAR_REGISTRY to promote and roll back.",
    promote: "Promote", shadow: "Try in the shadow", current: "current", promoted: "{m} serves now.", trying: "Trying {m} on the videos of this moment …",
    shadow_head: "{m} on {n} videos: another first query under {f}, another list under {l}; {o} of the present queries stay; rejects {a} → {b}; {x} → {y} ms a prompt.",
    shadow_same: "No list would be another.", never: "never", ops_need: "{d} Enter a key with the scope admin above.", rolled: "{m} serves again.",
    ok: "ok", kafka: "Kafka", redis: "Redis", model: "model", was_now: "now: {a}", would_be: "then: {b}",
  },
  zh: {
    skip_main: "跳到内容", admin_key: "有 admin 权限的密钥", parts: "各部分与依赖", now: "现在", sources: "回答来源", latency: "延迟", events: "各类事件",
    batches: "批大小", held: "拦下与拒绝", ctr: "点击率，按查询用谁的词", lag: "积压", ctr_note: "最新视频下展示过的查询，自视频出现以来。", rules: "规则", add_rule: "添加规则",
    rule_id: "名称", rule_action: "作用", do_block: "拦下", do_allow: "允许", do_pin: "置顶", do_learn: "拦下但可学习", rule_kind: "对象", kind_query: "这个查询",
    kind_word: "含这些词的查询", kind_pattern: "符合此模式的查询", rule_text: "文字", rule_video: "只在此视频下", rule_who: "谁决定", rule_why: "为什么", put_rule: "生效",
    letters: "死信", look: "查看", replay: "送回所选", drop: "丢弃所选", models: "模型", rollback: "退回上一个", up_fine: "正常", down: "没有响应",
    events_s: "每秒事件", answers_s: "每秒回答", p50: "一半回答在", p99: "99% 回答在", fresh: "事件到状态 99%", cached: "曝光到搜索条 99%", lag_all: "落后记录",
    letters_all: "启动以来搁置", memory: "总内存", waiting: "等待的提示", s_cache: "缓存", s_generated: "生成", "s_fallback/video": "兜底：视频", "s_fallback/anchors": "兜底：锚点", "s_fallback/empty": "兜底：空",
    l_what: "什么", l_half: "一半", l_90: "90%", l_99: "99%", l_count: "次数", "l_/v1/queries": "查询 (HTTP)", l_fresh: "事件 → 状态", l_cached: "曝光 → 缓存", l_apply: "一次写入 Redis",
    l_batch: "一批曝光", l_engine: "一次模型运行", b_stream: "一起写入的事件", b_engine: "一起运行的提示", b_mean: "平均 {n}", h_rule: "规则", h_personal: "个人信息", h_harmful: "有害",
    rejects: "被拒或超时的模型调用", i_late: "过期的曝光", none: "无", w_video: "视频自己的词", w_both: "两者都有", w_people: "用户或模型的词", rate_of: "{e} 中 {c}", r_text: "文字", r_scope: "范围",
    r_by: "谁，为什么", no_rules: "没有规则。", take_back: "撤回", everything: "全部", rule_in: "规则 {r} 已处处生效。", rule_out: "规则 {r} 已撤回。", letters_of: "（{n} 封未处理）", no_letters: "没有。",
    look_inside: "看内容", mend: "按这里的内容送回", done_letters: "完成 {n} 封。", refused: "{id} 没有送出：{why}", m_name: "检查点", m_made: "制作", m_size: "大小", m_live: "上线", serving: "这里在用：{m}",
    no_registry: "没有跟随注册表；设置 ONEBAR_REGISTRY 后可上线与退回。", promote: "上线", shadow: "影子试用", current: "当前", promoted: "现在用 {m}。", trying: "正在用 {m} 试答此刻的视频……",
    shadow_head: "{m} 对 {n} 个视频：首个查询不同 {f}，列表不同 {l}；保留现有查询 {o}；拒绝 {a} → {b}；每个提示 {x} → {y} 毫秒。", shadow_same: "没有一个列表不同。", never: "从未", ops_need: "{d} 请在上方输入有 admin 权限的密钥。",
    rolled: "重新用 {m}。", ok: "正常", model: "模型", was_now: "现在：{a}", would_be: "将会：{b}",
  },
});

const POLL_MS = 2000;
const WINDOW_S = 20;
const KEPT = 90;
const $ = (id) => document.getElementById(id);
const snapshots = [];
const series = {};

function say(text, bad = false) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", bad);
}

function explain(error) {
  if (error.status === 401 || error.status === 403) {
    $("key-row").hidden = false;
    say(t("ops_need", { d: error.message }), true);
  } else {
    say(error instanceof ApiError ? error.message : t("away"), true);
  }
}
const guarded = (action) => (happened) => { happened?.preventDefault?.(); action(happened).catch(explain); };

// Numbers -----------------------------------------------------------------------------------------

function values(snapshot, metric) {
  return snapshot.parts.flatMap((part) => part.numbers.values[metric] || []);
}
const fits = (wanted) => (each) => Object.entries(wanted).every(([label, value]) => each.labels[label] === value);
const total = (snapshot, metric, wanted = {}) =>
  values(snapshot, metric).filter(fits(wanted)).reduce((sum, each) => sum + each.value, 0);

function since() {
  const now = snapshots.at(-1);
  return snapshots.find((each) => now.at - each.at <= WINDOW_S) || now;
}
function rate(metric, wanted) {
  const now = snapshots.at(-1), then = since();
  const seconds = now.at - then.at;
  return seconds > 0 ? Math.max(0, total(now, metric, wanted) - total(then, metric, wanted)) / seconds : 0;
}

function distribution(snapshot, metric, wanted) {
  const every = snapshot.parts.flatMap((part) => part.numbers.distributions[metric] || []).filter(fits(wanted));
  const made = { bounds: [], counts: [], count: 0, sum: 0 };
  for (const each of every) {
    made.bounds = each.bounds;
    each.counts.forEach((count, at) => { made.counts[at] = (made.counts[at] || 0) + count; });
    made.count += each.count;
    made.sum += each.sum;
  }
  return made;
}
// Of the last seconds where something was counted in them, else of all.
function lately(metric, wanted = {}) {
  const now = distribution(snapshots.at(-1), metric, wanted), then = distribution(since(), metric, wanted);
  if (now.count - then.count < 5) return now;
  return {
    bounds: now.bounds, counts: now.counts.map((count, at) => count - (then.counts[at] || 0)),
    count: now.count - then.count, sum: now.sum - then.sum,
  };
}
function quantile({ bounds, counts, count }, share) {
  if (!count) return null;
  const wanted = share * count;
  let below = 0, from = 0;
  for (let at = 0; at < bounds.length; at += 1) {
    if (counts[at] >= wanted) {
      const here = counts[at] - below;
      return from + (bounds[at] - from) * (here ? (wanted - below) / here : 1);
    }
    below = counts[at];
    from = bounds[at];
  }
  return bounds.at(-1) ?? null;
}
function ms(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 1) return `${seconds.toFixed(1)} s`;
  return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
}
const percent = (share) => `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;

// What is shown -----------------------------------------------------------------------------------

function line(points) {
  const svg = $("spark").content.firstElementChild.cloneNode(true);
  const most = Math.max(...points, 1e-9);
  svg.firstElementChild.setAttribute("d", points.map((value, at) =>
    `${at ? "L" : "M"}${(at / Math.max(14, points.length - 1) * 100).toFixed(2)} ${(19 - value / most * 18).toFixed(2)}`).join(""));
  return svg;
}
function tile(name, value, text) {
  const points = (series[name] ??= []);
  points.push(value || 0);
  if (points.length > KEPT) points.shift();
  const made = element("div", undefined, "tile");
  made.append(element("p", t(name)), element("b", text), line(points));
  return made;
}
function rows(items) {
  const made = element("div", undefined, "rows");
  const most = Math.max(...items.map((item) => item.value), 1e-9);
  for (const { label, value, text } of items) {
    const row = element("div");
    const meter = element("i", undefined, "meter");
    meter.style.setProperty("--w", `${(value / most) * 100}%`);
    row.append(element("span", label), meter, element("span", text, "num"));
    made.append(row);
  }
  return items.length ? made : element("p", t("none"), "soft");
}
function head(table, names) {
  const row = element("tr");
  for (const name of names) {
    const cell = element("th", name);
    cell.scope = "col";
    row.append(cell);
  }
  table.replaceChildren(row);
}

function showParts(now) {
  const items = now.parts.map((part) => {
    const warned = Object.values(part.warnings)[0];
    const item = element("li", undefined, part.fine ? (warned ? "warned" : "") : "bad");
    const problem = Object.entries(part.problems).map(([about, said]) => `${about}: ${said}`).join("; ");
    item.append(element("b", part.name), element("span", part.up ? problem || warned || t("up_fine") : t("down"), "soft"));
    item.title = part.address;
    return item;
  });
  for (const name of ["kafka", "redis", "model"]) {
    const said = now.readiness[name];
    const item = element("li", undefined, said === "ok" ? "" : "bad");
    item.append(element("b", t(name)), element("span", said === "ok" ? t("ok") : said, "soft"));
    items.push(item);
  }
  $("parts").replaceChildren(...items);
}

function showTiles(now) {
  const answered = lately("onebar_http_request_seconds", { route: "/v1/queries" });
  const fresh = quantile(lately("onebar_stream_freshness_seconds"), 0.99);
  const cached = quantile(lately("onebar_generator_freshness_seconds"), 0.99);
  const p50 = quantile(answered, 0.5), p99 = quantile(answered, 0.99);
  const events = rate("onebar_stream_events", { outcome: "applied" }) + rate("onebar_generator_impressions", {});
  const answers = rate("onebar_answers", {});
  const lag = total(now, "onebar_worker_lag"), letters = total(now, "onebar_dead_letters");
  const memory = total(now, "process_resident_memory_bytes"), waiting = total(now, "onebar_engine_waiting");
  $("tiles").replaceChildren(
    tile("events_s", events, events.toFixed(1)), tile("answers_s", answers, answers.toFixed(1)),
    tile("p50", p50, ms(p50)), tile("p99", p99, ms(p99)), tile("fresh", fresh, ms(fresh)), tile("cached", cached, ms(cached)),
    tile("lag_all", lag, String(lag)), tile("waiting", waiting, String(waiting)), tile("letters_all", letters, String(letters)),
    tile("memory", memory, `${Math.round(memory / 2 ** 20)} MiB`));
}

function showRows(now) {
  const answers = values(now, "onebar_answers");
  const every = answers.reduce((sum, each) => sum + each.value, 0) || 1;
  const named = ["cache", "generated", "fallback/video", "fallback/anchors", "fallback/empty"].map((name) => {
    const [source, fallback = ""] = name.split("/");
    const value = answers.filter(fits({ source, fallback })).reduce((sum, each) => sum + each.value, 0);
    return { label: t(`s_${name}`), value, text: `${value} · ${percent(value / every)}` };
  });
  $("sources").replaceChildren(rows(named.filter((each) => each.value || each.label === t("s_cache"))));

  const kinds = [...new Set(values(now, "onebar_stream_events").filter(fits({ outcome: "applied" })).map((each) => each.labels.type))];
  const events = kinds.map((type) => {
    const wanted = { type, outcome: "applied" };
    return { label: type, value: total(now, "onebar_stream_events", wanted), text: `${rate("onebar_stream_events", wanted).toFixed(1)}/s` };
  });
  const seen = total(now, "onebar_generator_impressions");
  events.push({ label: "impression", value: seen, text: `${rate("onebar_generator_impressions", {}).toFixed(1)}/s` });
  $("events").replaceChildren(rows(events.sort((a, b) => b.value - a.value)));

  $("batches").replaceChildren(...[["b_stream", "onebar_stream_batch_events"], ["b_engine", "onebar_engine_batch_size"]].map(([name, metric]) => {
    const found = distribution(now, metric, {});
    const box = element("div");
    const mean = found.count ? (found.sum / found.count).toFixed(1) : "–";
    const items = found.bounds.map((bound, at) => ({ label: `≤ ${bound}`, value: found.counts[at] - (found.counts[at - 1] || 0) }))
      .map((item) => ({ ...item, text: String(item.value) })).filter((item) => item.value);
    box.append(element("h3", `${t(name)} · ${t("b_mean", { n: mean })}`), rows(items));
    return box;
  }));

  const held = ["rule", "personal", "harmful"].map((reason) => ({ label: t(`h_${reason}`), value: total(now, "onebar_held_queries", { reason }) }));
  const refused = values(now, "onebar_engine_prompts").filter((each) => each.labels.outcome !== "generated").reduce((sum, each) => sum + each.value, 0);
  held.push({ label: t("rejects"), value: refused }, { label: t("i_late"), value: total(now, "onebar_generator_impressions", { outcome: "late" }) });
  for (const each of values(now, "onebar_dead_letters")) held.push({ label: each.labels.reason, value: each.value });
  $("held").replaceChildren(rows(held.map((each) => ({ ...each, text: String(each.value) }))));

  const lags = {};
  for (const each of values(now, "onebar_worker_lag")) lags[each.labels.topic] = (lags[each.labels.topic] || 0) + each.value;
  $("lag").replaceChildren(rows(Object.entries(lags).map(([label, value]) => ({ label, value, text: String(value) }))));

  const table = $("latency");
  head(table, ["l_what", "l_half", "l_90", "l_99", "l_count"].map((name) => t(name)));
  for (const [name, metric, wanted] of [["l_/v1/queries", "onebar_http_request_seconds", { route: "/v1/queries" }],
    ["l_fresh", "onebar_stream_freshness_seconds", {}], ["l_cached", "onebar_generator_freshness_seconds", {}],
    ["l_apply", "onebar_stream_apply_seconds", {}], ["l_batch", "onebar_generator_batch_seconds", {}], ["l_engine", "onebar_engine_seconds", {}]]) {
    const found = lately(metric, wanted);
    const row = element("tr");
    row.append(element("td", t(name)), ...[0.5, 0.9, 0.99].map((share) => element("td", ms(quantile(found, share)), "num")),
      element("td", String(distribution(now, metric, wanted).count), "num"));
    table.append(row);
  }
}

async function showRates() {
  const { rates } = await call("/v1/click-rates");
  $("ctr").replaceChildren(rows(rates.map((each) => ({
    label: t(`w_${each.whose}`), value: each.rate || 0,
    text: each.rate === null ? "–" : percent(each.rate),
  }))));
  $("ctr").querySelectorAll(".rows > div").forEach((row, at) => { row.title = t("rate_of", { c: rates[at].clicks, e: rates[at].exposures }); });
}

// Rules -------------------------------------------------------------------------------------------

async function showRules() {
  const { rules } = await call("/v1/rules?limit=200");
  const table = $("rules");
  head(table, [t("rule_id"), t("rule_action"), t("r_text"), t("r_scope"), t("r_by"), ""]);
  for (const rule of rules) {
    const row = element("tr");
    const scope = ["video_id", "author", "category", "market"].filter((name) => rule[name]).map((name) => rule[name]).join(", ");
    const back = element("td");
    const button = element("button", t("take_back"));
    button.type = "button";
    button.setAttribute("aria-label", `${t("take_back")}: ${rule.rule_id}`);
    button.addEventListener("click", guarded(async () => {
      await call(`/v1/rules/${encodeURIComponent(rule.rule_id)}`, { method: "DELETE" });
      say(t("rule_out", { r: rule.rule_id }));
      await showRules();
    }));
    back.append(button);
    row.append(element("td", rule.rule_id), element("td", t(`do_${rule.action}`)), element("td", rule.query || rule.word || rule.pattern || t("everything")),
      element("td", scope || "–"), element("td", [rule.who, rule.why].filter(Boolean).join(": ") || "–"), back);
    table.append(row);
  }
  if (!rules.length) table.replaceChildren(rowOf(t("no_rules")));
}
function rowOf(text) {
  const row = element("tr");
  row.append(element("td", text, "soft"));
  return row;
}
$("add-rule").addEventListener("submit", guarded(async () => {
  const form = Object.fromEntries(new FormData($("add-rule")));
  const rule = { action: form.action };
  if (form.text.trim()) rule[form.kind] = form.text.trim();
  for (const name of ["video_id", "who", "why"]) if (form[name].trim()) rule[name] = form[name].trim();
  await call(`/v1/rules/${encodeURIComponent(form.rule_id.trim())}`, { method: "PUT", json: rule });
  say(t("rule_in", { r: form.rule_id.trim() }));
  $("add-rule").reset();
  await showRules();
}));

// Dead letters ------------------------------------------------------------------------------------

const chosen = () => [...$("letters").querySelectorAll("input:checked")].map((box) => box.value);

async function showLetters() {
  const { total: all, letters } = await call("/v1/dead-letters?limit=50", { timeout: 20000 });
  $("letters-total").textContent = t("letters_of", { n: all });
  $("letters").replaceChildren(...letters.map(letterItem));
  if (!letters.length) $("letters").replaceChildren(element("li", t("no_letters"), "soft"));
  chooseLetters();
}
function letterItem(letter) {
  const item = element("li");
  const top = element("div", undefined, "head");
  const label = element("label");
  const box = element("input");
  box.type = "checkbox";
  box.value = letter.id;
  label.append(box, " ", element("b", letter.id));
  top.append(label, element("span", `${letter.topic}/${letter.partition}@${letter.offset}`, "soft"),
    element("span", ago(Date.now() / 1000 - letter.failed_at), "soft"), element("span", letter.reason));
  const inside = element("details");
  const text = element("textarea", letter.value ?? "");
  text.spellcheck = false;
  text.setAttribute("aria-label", `${t("look_inside")}: ${letter.id}`);
  const mend = element("button", t("mend"));
  mend.type = "button";
  mend.addEventListener("click", guarded(() => settle("replay", { ids: [letter.id], value: text.value })));
  inside.append(element("summary", t("look_inside")), text, mend);
  item.append(top, inside);
  return item;
}
function chooseLetters() {
  $("letters-replay").disabled = $("letters-drop").disabled = !chosen().length;
}
async function settle(how, json) {
  const { done, refused } = await call(`/v1/dead-letters/${how}`, { method: "POST", json, timeout: 20000 });
  say([t("done_letters", { n: done }), ...refused.map((each) => t("refused", each))].join(" "), refused.length > 0);
  await showLetters();
}
$("letters").addEventListener("change", chooseLetters);
$("letters-look").addEventListener("click", guarded(showLetters));
$("letters-replay").addEventListener("click", guarded(() => settle("replay", { ids: chosen() })));
$("letters-drop").addEventListener("click", guarded(() => settle("drop", { ids: chosen() })));

// Models ------------------------------------------------------------------------------------------

async function showModels(found) {
  const { serving, warning, registry, models } = found || await call("/v1/models");
  $("serving").textContent = [t("serving", { m: serving || t("none") }), warning, registry ? "" : t("no_registry")].filter(Boolean).join(" · ");
  $("rollback").disabled = models.filter((each) => each.promoted_at).length < 2;
  const table = $("models");
  head(table, ["m_name", "m_made", "m_size", "m_live", "m_do"].map((name) => (name === "m_do" ? "" : t(name))));
  for (const model of models) {
    const row = element("tr", undefined, model.current ? "current" : "");
    const does = element("td");
    for (const [name, action] of [["promote", () => promote(model.name)], ["shadow", () => shadow(model.name)]]) {
      const button = element("button", t(name));
      button.type = "button";
      button.setAttribute("aria-label", `${t(name)}: ${model.name}`);
      button.disabled = name === "promote" && model.current;
      button.addEventListener("click", guarded(action));
      does.append(button, " ");
    }
    const from = [model.training.stage, model.training.parameters && `${(model.training.parameters / 1e6).toFixed(1)} M`].filter(Boolean).join(", ");
    row.append(element("td", `${model.name}${model.current ? ` (${t("current")})` : ""}`), element("td", [(model.created_at || "").slice(0, 10), from].filter(Boolean).join(" · ") || model.problem || ""),
      element("td", `${(model.bytes / 1e6).toFixed(1)} MB`, "num"),
      element("td", model.promoted_at ? new Date(model.promoted_at * 1000).toLocaleString() : t("never")), does);
    table.append(row);
  }
}
async function promote(name) {
  await showModels(await call(`/v1/models/${encodeURIComponent(name)}/promote`, { method: "POST", timeout: 60000 }));
  say(t("promoted", { m: name }));
}
async function shadow(name) {
  say(t("trying", { m: name }));
  const found = await call(`/v1/models/${encodeURIComponent(name)}/shadow`, { method: "POST", timeout: 60000 });
  say("");
  const lists = found.lists.map((each) => {
    const box = element("div");
    box.append(element("h3", each.title || each.video_id), element("p", t("was_now", { a: each.now.join(" · ") || t("none") })),
      element("p", t("would_be", { b: each.then.join(" · ") || t("none") })));
    return box;
  });
  $("shadow").replaceChildren(element("p", t("shadow_head", {
    m: name, n: found.videos, f: percent(found.other_first), l: percent(found.other_list), o: percent(found.overlap),
    a: percent(found.now_rejected), b: percent(found.then_rejected), x: found.now_ms.toFixed(1), y: found.then_ms.toFixed(1),
  })), ...(lists.length ? lists : [element("p", t("shadow_same"), "soft")]));
}
$("rollback").addEventListener("click", guarded(async () => {
  const found = await call("/v1/models/rollback", { method: "POST", timeout: 60000 });
  await showModels(found);
  say(t("rolled", { m: found.models.find((each) => each.current)?.name }));
}));

// Start -------------------------------------------------------------------------------------------

async function poll() {
  const now = await call("/v1/operations");
  if (snapshots.length && now.at <= snapshots.at(-1).at) return;
  snapshots.push(now);
  if (snapshots.length > KEPT) snapshots.shift();
  show();
}
function show() {
  const now = snapshots.at(-1);
  if (!now) return;
  showParts(now);
  showTiles(now);
  showRows(now);
}
async function slowly() {
  await Promise.all([showRates(), showRules(), showModels()]);
}
$("key").addEventListener("change", () => {
  forNow.set("key", $("key").value.trim());
  say("");
  slowly().catch(explain);
});

dress(() => { show(); slowly().catch(explain); showLetters().catch(explain); });
paint();
let away = false;
slowly().then(showLetters).catch(explain);
for (let turn = 0; ; turn += 1) {
  if (!document.hidden) {
    try {
      await poll();
      if (turn % 8 === 7) await showRates();
      if (away) say("");
      away = false;
    } catch (error) { away = true; explain(error); }
  }
  await new Promise((done) => setTimeout(done, POLL_MS));
}
