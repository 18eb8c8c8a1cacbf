// What the page says, in two languages. A word that one lacks is said in English.
import { kept } from "/static/call.js";

const EN = {
  feed: "Feed", operations: "Operations", api: "API", pages: "Pages", watch_as: "Watch as",
  key: "API key", theme: "Dark or light", skip_bar: "Skip to the search bar", search: "Search",
  go: "Search", the_video: "The video", previous: "Previous video", next: "Next video",
  bar_help: "Searches for this; the bar then changes.",
  keys_help: "Swipe, scroll or ↑ ↓ to step · Enter taps the bar · / types a search",
  changed: "What changed the bar",
  changed_empty: "Tap the bar, or search for something. The list is made anew from what you did.",
  before: "Before", after: "After", new: "new", you_tapped: "You tapped “{q}”",
  you_searched: "You searched “{q}”", someone: "Others tapped or searched",
  made_in: "{total} ms after your {what}; made anew in {made} ms", tap: "tap", typed: "search",
  made_alone: "made anew in {made} ms",
  same_list: "The evidence is another, the list stays as it is.",
  same_list_own: "The list stays as it is: that says nothing new about this video, or weighs too little yet.",
  because_A_new: "people who saw this now also searched “{q}”",
  because_A_stronger: "“{q}” weighs more", because_A_gone: "“{q}” is no longer among them",
  because_H_new: "your history holds “{q}”", because_H_stronger: "you asked “{q}” again",
  because_H_gone: "“{q}” has left your history", because_T: "the video's text is another",
  because_M: "the video's summary is another", because_rules: "the rules of what may be shown changed",
  because_model: "another model answers", because_tapped: "the bar does not repeat what you tapped",
  pending: "Others searched meanwhile: the bar would now say “{q}”.", apply: "Show it",
  live: "Change the bar by itself when others tap",
  why: "Why this query", prompt: "The prompt the model reads", candidates: "Candidates",
  left_out: "Left out, and why", anchors: "Anchors", T: "text of the video", M: "summary",
  A: "anchors: what people searched after it", H: "your searches that bear on it",
  history: "What this user searched lately", bears: "bears on this video: in the prompt", bears_not: "does not bear on this video: left out of the prompt",
  nothing: "nothing", source: "Now", cache: "from the cache", generated: "generated now",
  fallback: "fallback", age: "Age", model: "Model", digest: "Evidence", shared_yes: "the same for all",
  shared_no: "made for this user", for_whom: "Whose", lookup: "When it was asked for", s_old: "{s} old",
  c_query: "Query", c_weight: "Weight", c_source: "Source", c_shown: "Shown", c_tapped: "Tapped",
  behavior: "this video", neighbor: "a near video", retrieved: "a near query",
  o_model: "model", o_anchor: "anchor", o_neighbor: "near", o_history: "history", o_text: "text", o_known: "known",
  o_pinned: "pinned", no_anchors: "Nobody has searched after this video yet.",
  in_prompt: "in the prompt", chance: "{p} likely",
  h_unlikely: "too unlikely beside the others", h_no_room: "eight are enough, or says much the same",
  h_rule: "held back by rule {d}", h_personal: "held back: personal data ({d})",
  h_harmful: "held back: harmful ({d})", h_broken: "half a word or a sign", h_fragment: "a piece of a sentence",
  h_repeated: "a word twice", h_ungrounded: "nothing in the evidence says so", h_nonword: "a word that does not exist",
  h_script: "a script the video does not use", h_improbable: "below the model's floor", h_risky: "risky",
  h_duplicate: "says the same as another", h_rejected: "the model rejects the video",
  none_left_out: "Nothing was left out.",
  r_sensitive: "No search under this video: it is marked sensitive.",
  r_risky: "No search under this video: its text is about something a bar keeps away from.",
  r_removed: "This video was removed.", r_no_evidence: "No search yet: nothing is known of this video.",
  r_rejected: "No search under this video: the model rejects it.",
  r_nothing_left: "No search under this video: no candidate may be shown.",
  r_held_back: "No search under this video: all of it is held back.", r_wait: "Waiting for its first queries …",
  add: "Add a video", f_title: "Title", f_caption: "Caption", f_item: "Item sold with it", f_author: "Author",
  f_sensitive: "Sensitive: it must not carry a search", add_go: "Upload and watch its first queries",
  added: "Uploaded. Its first queries came {ms} ms later.", added_wait: "Uploaded; waiting for its queries …",
  added_none: "Uploaded. It carries no search.",
  you: "you", nobody: "nobody (not signed in)", fresh_1: "1 new video", fresh_n: "{n} new videos",
  untitled: "a video without a title", sent: "Searched for “{q}”.", now_says: "The bar now says “{q}”.",
  empty_feed: "No videos yet. Start a feed, or add one below.", away: "The API does not answer; trying again …",
  need_key: "{d} Enter a key above.", w_away: "Waiting: {d}", step_end: "That was the last one.",
  sells: "Sells: {x}",
};
const ZH = {
  feed: "视频", operations: "运维", api: "API", pages: "页面", watch_as: "观看身份", key: "API 密钥",
  theme: "深色或浅色", skip_bar: "跳到搜索条", search: "搜索", go: "搜索", the_video: "视频",
  previous: "上一个视频", next: "下一个视频", bar_help: "点一下就搜索，搜索条随之改变。",
  keys_help: "滑动、滚动或 ↑ ↓ 切换 · 回车点击搜索条 · / 输入搜索",
  changed: "搜索条为什么变了", changed_empty: "点一下搜索条，或输入一个搜索，列表会根据你的行为重新生成。",
  before: "之前", after: "之后", new: "新", you_tapped: "你点了“{q}”", you_searched: "你搜了“{q}”",
  someone: "别人点击或搜索了", made_in: "{what}后 {total} 毫秒；重新生成用了 {made} 毫秒", tap: "点击", typed: "搜索",
  made_alone: "重新生成用了 {made} 毫秒", same_list: "证据变了，列表没有变。",
  same_list_own: "列表没有变：它与此视频无关，或分量还不够。", because_A_new: "看过的人现在也搜“{q}”", because_A_stronger: "“{q}”的权重变大", because_A_gone: "“{q}”不再是锚点",
  because_H_new: "你的历史里有了“{q}”", because_H_stronger: "你又问了一次“{q}”", because_H_gone: "“{q}”离开了你的历史",
  because_T: "视频的文字变了", because_M: "视频的摘要变了", because_rules: "展示规则变了",
  because_model: "换了一个模型", because_tapped: "点过的不再重复",
  pending: "这期间别人搜索过：搜索条现在会是“{q}”。", apply: "显示", live: "别人点击时自动更新搜索条",
  why: "为什么是这个查询", prompt: "模型读到的提示", candidates: "候选", left_out: "没有入选的，以及原因",
  anchors: "锚点", T: "视频文字", M: "摘要", A: "锚点：看过的人搜了什么", H: "你与它相关的搜索",
  history: "这个用户最近的搜索", bears: "与此视频相关：在提示中", bears_not: "与此视频无关：不在提示中", nothing: "无", source: "现在", cache: "来自缓存", generated: "刚刚生成", fallback: "兜底", age: "时间", model: "模型",
  digest: "证据", shared_yes: "人人相同", shared_no: "为此用户生成", for_whom: "给谁", lookup: "请求时", s_old: "{s} 前",
  c_query: "查询", c_weight: "权重", c_source: "来源", c_shown: "展示", c_tapped: "点击", behavior: "本视频",
  neighbor: "相近视频", retrieved: "相近查询", o_model: "模型", o_anchor: "锚点", o_neighbor: "相近", o_history: "历史", o_known: "已知",
  o_text: "文字", o_pinned: "置顶", no_anchors: "还没有人看过后搜索。", in_prompt: "在提示中", chance: "可能性 {p}",
  h_unlikely: "比起其他太不可能", h_no_room: "八个已够，或意思相近", h_rule: "被规则 {d} 拦下", h_personal: "拦下：个人信息（{d}）",
  h_harmful: "拦下：有害（{d}）", h_broken: "残缺的字词", h_fragment: "半句话", h_repeated: "重复的词", h_ungrounded: "证据里没有依据",
  h_nonword: "不存在的词", h_script: "视频没有用到的文字", h_improbable: "低于模型的下限", h_risky: "有风险", h_duplicate: "与另一个意思相同",
  h_rejected: "模型拒绝此视频", none_left_out: "没有落选的。",
  r_sensitive: "此视频下没有搜索：已标为敏感。", r_risky: "此视频下没有搜索：内容需要回避。", r_removed: "视频已被移除。",
  r_no_evidence: "还没有搜索：对此视频一无所知。", r_rejected: "此视频下没有搜索：模型拒绝。", r_nothing_left: "此视频下没有搜索：没有可展示的候选。",
  r_held_back: "此视频下没有搜索：全部被拦下。", r_wait: "正在等待第一批查询……",
  add: "添加视频", f_title: "标题", f_caption: "文案", f_item: "在售商品", f_author: "作者", f_sensitive: "敏感：不得带搜索",
  add_go: "上传并观看第一批查询", added: "已上传，{ms} 毫秒后有了第一批查询。", added_wait: "已上传，正在等待查询……", added_none: "已上传，它不带搜索。",
  you: "你", nobody: "未登录", fresh_1: "1 个新视频", fresh_n: "{n} 个新视频", untitled: "没有标题的视频", sent: "已搜索“{q}”。",
  now_says: "搜索条现在是“{q}”。", empty_feed: "还没有视频。请启动一个 feed，或在下面添加。", away: "API 没有响应，正在重试……",
  need_key: "{d} 请在上方输入密钥。", w_away: "等待：{d}", step_end: "这是最后一个。", sells: "在售：{x}",
};
const ALL = { en: EN, zh: ZH };

export let lang = kept.get("lang", (navigator.language || "en").startsWith("zh") ? "zh" : "en");
export const add = (more) => { for (const [name, words] of Object.entries(more)) Object.assign(ALL[name], words); };

export function t(name, values = {}) {
  const text = ALL[lang][name] ?? EN[name] ?? name;
  return text.replace(/\{(\w+)\}/g, (whole, key) => (key in values ? isolated(String(values[key])) : whole));
}

// Somebody's words in a sentence of ours: what is written from the right, or overrides the direction, turns round nothing
// beside it.
function isolated(text) {
  const plain = text.replace(/[\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "");
  return plain !== text || /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/.test(plain) ? `\u2068${plain}\u2069` : text;
}
export const said = (name) => name in EN;

export function paint(root = document) {
  document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
  for (const each of root.querySelectorAll("[data-t]")) each.textContent = t(each.dataset.t);
  for (const each of root.querySelectorAll("[data-t-label]")) each.setAttribute("aria-label", t(each.dataset.tLabel));
  const other = document.getElementById("lang");
  other.textContent = lang === "zh" ? "English" : "中文";
  other.lang = lang === "zh" ? "en" : "zh";
}

// The buttons of language and theme, on every page.
export function dress(again) {
  const theme = () => {
    const wanted = kept.get("theme", "");
    if (wanted) document.documentElement.dataset.theme = wanted;
    else delete document.documentElement.dataset.theme;
  };
  theme();
  document.getElementById("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
    kept.set("theme", dark ? "light" : "dark");
    theme();
  });
  document.getElementById("lang").addEventListener("click", () => {
    lang = lang === "zh" ? "en" : "zh";
    kept.set("lang", lang);
    paint();
    again();
  });
  paint();
}

export function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  if (className) made.className = className;
  return made;
}

export function ago(seconds) {
  const s = Math.max(0, seconds);
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 60) return `${Math.round(s)} s`;
  return s < 3600 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
}
