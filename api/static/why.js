// Beside the video: what changed the bar, and what it stands on. Text from outside is textContent.
import { ago, element, said, t } from "/static/words.js";

const $ = (id) => document.getElementById(id);
const chip = (name, text) => element("i", text ?? name, `f ${name}`);
const percent = (share) => (share >= 0.095 ? `${Math.round(share * 100)} %` : `${(share * 100).toFixed(1)} %`);

function line(change) {
  const made = element("li");
  made.append(chip(change.field), " ");
  const name = "TM".includes(change.field) ? `because_${change.field}` : `because_${change.field}_${change.what}`;
  made.append(element("span", t(name, { q: change.query || "" })));
  if (change.before || change.after) {
    const weights = [change.before, change.after].map((w) => (w ? w.toFixed(1) : "0"));
    made.append(" ", element("b", weights.join(" → "), "num"));
  }
  return made;
}

function list(title, texts, beside, skipped, pick) {
  const box = element("div");
  box.append(element("h3", title));
  const made = element("ol");
  texts.forEach((text, at) => {
    const item = element("li");
    item.append(element("span", text, skipped.has(text) ? "tapped" : text === pick ? "picked" : ""));
    if (beside) {
      const was = beside.indexOf(text);
      const mark = was < 0 ? t("new") : was > at ? `▲${was - at}` : was < at ? `▼${at - was}` : "";
      if (mark) item.append(" ", element("b", mark, was < 0 || was > at ? "up" : "down"));
    }
    made.append(item);
  });
  if (!texts.length) made.append(element("li", t("nothing"), "soft"));
  box.append(made);
  return box;
}

// `what`: {before, after, because, rules, model_changed, took_ms, own: {kind, query, ms} | null,
// tapped: Set, bar: text}
export function showChange(what) {
  const parts = [];
  const { own } = what;
  const head = own ? t(own.kind === "tap" ? "you_tapped" : "you_searched", { q: own.query }) : t("someone");
  parts.push(element("p", head, "headline"));
  const lines = element("ul", undefined, "because");
  const mine = (change) => (own && change.query && change.query.toLowerCase() === own.query.toLowerCase() ? 0 : 1);
  const sorted = [...what.because].sort((a, b) => mine(a) - mine(b)).slice(0, 4);
  lines.append(...sorted.map(line));
  if (what.rules) lines.append(element("li", t("because_rules")));
  if (what.model_changed) lines.append(element("li", t("because_model")));
  if (own && own.kind === "tap") lines.append(element("li", t("because_tapped"), "soft"));
  parts.push(lines);
  const made = what.took_ms?.toFixed(0);
  if (made !== undefined) parts.push(element("p", own && own.ms
    ? t("made_in", { total: Math.round(own.ms), what: t(own.kind === "tap" ? "tap" : "typed"), made })
    : t("made_alone", { made }), "soft timing"));
  const same = JSON.stringify(what.before) === JSON.stringify(what.after);
  if (same) parts.push(element("p", t(own ? "same_list_own" : "same_list"), "soft"));
  if (same && !own) {
    $("changed").replaceChildren(...parts);
    return;
  }
  const both = element("div", undefined, "both");
  both.append(list(t("before"), what.before, null, new Set(), null),
    list(t("after"), what.after, what.before, what.tapped, what.bar));
  parts.push(both);
  $("changed").replaceChildren(...parts);
}

export function clearChange() {
  $("changed").replaceChildren(element("p", t("changed_empty"), "soft"));
}

function fact(name, value) {
  const box = element("div");
  box.append(element("dt", t(name)), element("dd", value));
  return box;
}

function showFacts(found, lookup) {
  const { answer, explanation } = found;
  const how = answer.source === "fallback" ? `${t("fallback")}: ${answer.fallback}` : t(answer.source);
  const facts = [fact("source", how)];
  if (lookup) facts.push(fact("lookup", `${t(lookup.source)}, ${lookup.ms.toFixed(0)} ms`));
  if (answer.age_s !== null) facts.push(fact("age", t("s_old", { s: ago(answer.age_s) })));
  facts.push(fact("model", answer.model || found.model), fact("for_whom", t(explanation.shared ? "shared_yes" : "shared_no")),
    fact("digest", explanation.digest.slice(0, 8)));
  $("facts").replaceChildren(...facts);
}

function showPrompt(segments) {
  const parts = [];
  segments.forEach((segment, at) => {
    if (at) parts.push(element("code", " [SEP] ", "sep"));
    const made = element("span", undefined, `seg ${segment.field}`);
    made.append(chip(segment.field), " ", segment.text || t("nothing"));
    if (!segment.text) made.classList.add("none");
    parts.push(made);
  });
  $("prompt").replaceChildren(...parts);
}

function candidate(each, top) {
  const item = element("li");
  const meter = element("i", undefined, "meter");
  const share = Math.exp(each.score ?? -9);
  meter.style.setProperty("--w", `${Math.max(2, (share / top) * 100)}%`);
  const row = element("span", each.text, "q");
  const origins = element("span", undefined, "origins");
  for (const origin of each.origins) origins.append(chip({ model: "G", anchor: "A", neighbor: "A", history: "H", text: "T", known: "K", pinned: "P" }[origin], t(`o_${origin}`)));
  item.append(row, origins, element("span", percent(share), "num"), meter);
  item.title = t("chance", { p: percent(share) });
  return item;
}

function showCandidates(candidates) {
  const shown = candidates.filter((each) => each.position !== null);
  const rest = candidates.filter((each) => each.position === null);
  const top = Math.max(...shown.map((each) => Math.exp(each.score ?? -9)), 1e-9);
  $("candidates").replaceChildren(...shown.map((each) => candidate(each, top)));
  if (!shown.length) $("candidates").replaceChildren(element("li", t("nothing"), "soft"));
  $("dropped").replaceChildren(...rest.map((each) => {
    const item = element("li");
    const why = `h_${each.held}`;
    item.append(element("span", each.text, "q"), element("span", said(why) ? t(why, { d: each.detail }) : each.held || "", "soft"));
    return item;
  }));
  if (!rest.length) $("dropped").replaceChildren(element("li", t("none_left_out"), "soft"));
}

function showAnchors(anchors) {
  const table = $("anchors");
  if (!anchors.length) {
    const row = element("tr");
    row.append(element("td", t("no_anchors"), "soft"));
    table.replaceChildren(row);
    return;
  }
  const head = element("tr");
  for (const name of ["c_query", "c_weight", "c_source", "c_shown", "c_tapped"]) {
    const cell = element("th", t(name));
    cell.scope = "col";
    head.append(cell);
  }
  const most = anchors[0].weight;
  const rows = anchors.slice(0, 12).map((anchor) => {
    const row = element("tr");
    const name = element("td", anchor.query);
    if (anchor.in_prompt) {
      const mark = chip("A");
      mark.title = t("in_prompt");
      name.append(" ", mark);
    }
    const weight = element("td", undefined, "weight");
    const meter = element("i", undefined, "meter");
    meter.style.setProperty("--w", `${Math.max(2, (anchor.weight / most) * 100)}%`);
    weight.append(element("span", anchor.weight.toFixed(1), "num"), meter);
    row.append(name, weight, element("td", t(anchor.source)), element("td", String(anchor.exposures), "num"), element("td", String(anchor.clicks), "num"));
    return row;
  });
  table.replaceChildren(head, ...rows);
}

function showHistory(history) {
  $("history-box").hidden = !history.length;
  $("history").replaceChildren(...history.slice(0, 10).map((entry) => {
    const item = element("li", entry.query, entry.used ? "used" : "soft");
    item.title = t(entry.used ? "bears" : "bears_not");
    return item;
  }));
}

export function showWhy(found, lookup) {
  showFacts(found, lookup);
  showPrompt(found.explanation.segments);
  showHistory(found.explanation.history);
  showCandidates(found.explanation.candidates);
  showAnchors(found.explanation.anchors);
}
