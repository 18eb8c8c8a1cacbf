// The API reference, drawn from /openapi.json: nothing is loaded from elsewhere.
import { forNow } from "./call.js";
import { tryIt } from "./try.js";

const main = document.getElementById("reference");

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

const short = (ref) => ref.slice(ref.lastIndexOf("/") + 1);

function type(schema) {
  if (!schema) return "";
  if (schema.$ref) return short(schema.$ref);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  const either = schema.anyOf || schema.oneOf;
  if (either) return either.map(type).join(" | ");
  if (schema.type === "array") return `list of ${type(schema.items) || "anything"}`;
  const limits = [];
  for (const name of ["minimum", "maximum", "minLength", "maxLength", "maxItems", "default"]) {
    if (schema[name] !== undefined) limits.push(`${name} ${schema[name]}`);
  }
  return [schema.type || "anything", ...limits].join(", ");
}

function table(head, rows) {
  const made = element("table");
  const first = element("tr");
  for (const name of head) first.append(element("th", name));
  made.append(first);
  for (const row of rows) {
    const line = element("tr");
    for (const cell of row) line.append(element("td", cell));
    made.append(line);
  }
  return made;
}

function examples(content) {
  const found = [];
  for (const body of Object.values(content || {})) {
    if (body.example !== undefined) found.push(body.example);
    for (const named of Object.values(body.examples || {})) found.push(named.value);
  }
  return found;
}

function shown(example) {
  const made = element("pre", typeof example === "string" ? example : JSON.stringify(example, null, 2));
  made.tabIndex = 0; // it may scroll
  return made;
}

// Blank lines part paragraphs, and `code` is code.
function paragraphs(text) {
  return text.split("\n\n").map((part) => {
    const made = element("p");
    part.split("`").forEach((piece, at) => made.append(at % 2 ? element("code", piece) : piece));
    return made;
  });
}

const bodyType = (content) => Object.entries(content || {})
  .map(([media, body]) => `${media}: ${type(body.schema)}`).join("; ");

function operation(method, path, described) {
  const made = element("details", undefined, "op");
  made.id = described.operationId;
  const summary = element("summary");
  summary.append(element("b", method.toUpperCase()), element("code", path),
    document.createTextNode(` ${described.summary || ""}`));
  made.append(summary);
  if (described.description) made.append(...paragraphs(described.description));
  made.append(tryIt(method, path, described));
  if (described.parameters?.length) {
    made.append(table(["parameter", "in", "type", "meaning"], described.parameters.map((parameter) => [
      parameter.name + (parameter.required ? " *" : ""), parameter.in, type(parameter.schema),
      parameter.description || "",
    ])));
  }
  if (described.requestBody) {
    made.append(element("h3", "Body"), element("p", bodyType(described.requestBody.content)));
    for (const example of examples(described.requestBody.content)) {
      made.append(shown(example));
    }
  }
  made.append(element("h3", "Answers"));
  made.append(table(["status", "meaning", "body"],
    Object.entries(described.responses).map(([status, response]) => [
      status, response.description, bodyType(response.content),
    ])));
  for (const [status, response] of Object.entries(described.responses)) {
    if (status >= "400") continue; // one problem looks like the other
    for (const example of examples(response.content)) made.append(shown(example));
  }
  return made;
}

function schema(name, described) {
  const made = element("details", undefined, "op");
  const summary = element("summary");
  summary.append(element("code", name));
  made.append(summary);
  if (described.description) made.append(element("p", described.description));
  const needed = new Set(described.required || []);
  const fields = Object.entries(described.properties || {});
  if (fields.length) {
    made.append(table(["field", "type", "meaning"], fields.map(([field, value]) => [
      field + (needed.has(field) ? " *" : ""), type(value), value.description || "",
    ])));
  } else {
    made.append(element("p", type(described)));
  }
  return made;
}

const key = document.getElementById("key");
key.value = forNow.get("key", "");
key.addEventListener("input", () => forNow.set("key", key.value.trim()));
document.getElementById("key-form").addEventListener("submit", (event) => event.preventDefault());

const response = await fetch("/openapi.json");
const document_ = await response.json();
const parts = [...paragraphs(document_.info.description)];
const groups = new Map(document_.tags.map((tag) => [tag.name, tag]));
const index = element("nav");
index.ariaLabel = "Routes";
const sections = new Map();
for (const [name, tag] of groups) {
  const section = element("section");
  section.append(element("h2", name), element("p", tag.description));
  sections.set(name, section);
  const list = element("ul");
  index.append(element("h2", name), list);
  section.list = list;
}
for (const [path, operations] of Object.entries(document_.paths)) {
  for (const [method, described] of Object.entries(operations)) {
    const section = sections.get(described.tags[0]);
    section.append(operation(method, path, described));
    const line = element("li");
    const link = element("a", `${method.toUpperCase()} ${path}`);
    link.href = `#${described.operationId}`;
    line.append(link);
    section.list.append(line);
  }
}
const records = element("section");
records.append(element("h2", "Records"));
for (const [name, described] of Object.entries(document_.components.schemas).sort()) {
  records.append(schema(name, described));
}
main.replaceChildren(index, ...parts, ...sections.values(), records);

// The operation that the address names is open.
function unfold() {
  const named = document.getElementById(location.hash.slice(1));
  if (named?.tagName === "DETAILS") {
    named.open = true;
    named.scrollIntoView();
  }
}
addEventListener("hashchange", unfold);
unfold();
