// The API reference, drawn from /openapi.json: nothing is loaded from elsewhere.
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

const bodyType = (content) => Object.entries(content || {})
  .map(([media, body]) => `${media}: ${type(body.schema)}`).join("; ");

function operation(method, path, described) {
  const made = element("details", undefined, "op");
  const summary = element("summary");
  summary.append(element("b", method.toUpperCase()), element("code", path),
    document.createTextNode(` ${described.summary || ""}`));
  made.append(summary);
  if (described.description) made.append(element("p", described.description));
  if (described.parameters?.length) {
    made.append(table(["parameter", "in", "type", ""], described.parameters.map((parameter) => [
      parameter.name + (parameter.required ? " *" : ""), parameter.in, type(parameter.schema),
      parameter.description || "",
    ])));
  }
  if (described.requestBody) {
    made.append(element("h3", "Body"), element("p", bodyType(described.requestBody.content)));
    for (const example of examples(described.requestBody.content)) {
      made.append(element("pre", JSON.stringify(example, null, 2)));
    }
  }
  made.append(element("h3", "Answers"));
  made.append(table(["status", "meaning", "body"],
    Object.entries(described.responses).map(([status, response]) => [
      status, response.description, bodyType(response.content),
    ])));
  for (const response of Object.values(described.responses)) {
    for (const example of examples(response.content)) {
      made.append(element("pre", JSON.stringify(example, null, 2)));
    }
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
    made.append(table(["field", "type", ""], fields.map(([field, value]) => [
      field + (needed.has(field) ? " *" : ""), type(value), value.description || "",
    ])));
  } else {
    made.append(element("p", type(described)));
  }
  return made;
}

const response = await fetch("/openapi.json");
const document_ = await response.json();
const parts = [element("p", document_.info.description)];
for (const [path, operations] of Object.entries(document_.paths)) {
  for (const [method, described] of Object.entries(operations)) {
    parts.push(operation(method, path, described));
  }
}
parts.push(element("h2", "Records"));
for (const [name, described] of Object.entries(document_.components.schemas).sort()) {
  parts.push(schema(name, described));
}
main.replaceChildren(...parts);
