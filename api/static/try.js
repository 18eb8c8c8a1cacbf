// "Try it": a form for one operation, sent to the server that the page came from.
import { forNow } from "./call.js";

const element = (name, text, className) => {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};

// A parameter's value as text; an empty one is left out.
function field(form, name, parameter) {
  const id = `${name}-${parameter.name}`;
  const label = element("label", parameter.name + (parameter.required ? " *" : ""));
  label.htmlFor = id;
  const choices = parameter.schema.enum;
  const input = element(choices ? "select" : "input");
  for (const choice of choices ? ["", ...choices] : []) input.append(new Option(choice, choice));
  input.id = id;
  input.dataset.name = parameter.name;
  input.dataset.in = parameter.in;
  const example = parameter.example ?? parameter.schema.examples?.[0];
  if (parameter.required && example !== undefined) input.value = String(example);
  else if (!choices && example !== undefined) input.placeholder = `such as ${[example].flat().join(", ")}`;
  form.append(label, input);
}

// The request that a form describes.
export function request(form, method, path) {
  const query = new URLSearchParams();
  let target = path;
  for (const input of form.querySelectorAll("[data-in]")) {
    const { name, in: where } = input.dataset;
    if (where === "path") target = target.replace(`{${name}}`, encodeURIComponent(input.value));
    else if (input.value !== "") {
      for (const each of input.dataset.many ? input.value.split(",") : [input.value]) query.append(name, each.trim());
    }
  }
  const asked = query.toString();
  const body = form.querySelector("textarea");
  return {
    url: target + (asked ? `?${asked}` : ""),
    method: method.toUpperCase(),
    type: body && form.querySelector("select[data-media]").value,
    body: body?.value,
  };
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// What would ask the same from a shell. The key is left out: it would stand in the shell's history.
export function curl({ url, method, type, body }) {
  const parts = ["curl", "-s", "-X", method, quoted(location.origin + url)];
  if (forNow.get("key", "")) parts.push("-H", '"X-API-Key: $KEY"');
  if (body !== undefined) parts.push("-H", quoted(`Content-Type: ${type}`), "--data-binary", quoted(body));
  return parts.join(" ");
}

async function send(asked, told) {
  const headers = {};
  const key = forNow.get("key", "");
  if (key) headers["X-API-Key"] = key;
  if (asked.body !== undefined) headers["Content-Type"] = asked.type;
  const began = performance.now();
  try {
    const response = await fetch(asked.url, {
      method: asked.method, headers, body: asked.body, cache: "no-store", signal: AbortSignal.timeout(20_000),
    });
    const text = await response.text();
    const ms = Math.round(performance.now() - began);
    told(`${response.status} ${response.statusText} · ${ms} ms · X-Request-ID ${response.headers.get("X-Request-ID")}`,
      readable(text), response.ok);
  } catch (error) {
    told(`No answer: ${error.message}`, "", false);
  }
}

function readable(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

const examples = (body) => [
  ...(body.example === undefined ? [] : [body.example]),
  ...Object.values(body.examples || {}).map((named) => named.value),
];

export function tryIt(method, path, described) {
  const made = element("details", undefined, "try");
  made.append(element("summary", "Try it"));
  const form = element("form");
  for (const parameter of described.parameters || []) {
    field(form, described.operationId, parameter);
    if (parameter.schema.type === "array") form.lastChild.dataset.many = "yes";
  }
  // A stream without an end has none to show: one event of it.
  const most = form.querySelector("[data-name=most]");
  if (most && described.responses["200"].content["text/event-stream"]) most.value = "1";
  const content = described.requestBody?.content;
  if (content) {
    const media = element("select");
    media.dataset.media = "yes";
    media.ariaLabel = "Content-Type";
    const body = element("textarea");
    body.ariaLabel = "Body";
    body.rows = 8;
    body.spellcheck = false;
    for (const type of Object.keys(content)) media.append(new Option(type, type));
    const fill = () => {
      const [example = {}] = examples(content[media.value]);
      body.value = typeof example === "string" ? example : JSON.stringify(example, null, 2);
    };
    media.addEventListener("change", fill);
    fill();
    form.append(media, body);
  }
  const button = element("button", method === "get" ? "Send" : `Send: this ${method.toUpperCase()} acts on this server`);
  const shell = element("pre", undefined, "curl");
  const status = element("p");
  status.role = "status";
  const answer = element("pre");
  answer.tabIndex = 0;
  answer.hidden = true;
  form.append(button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const asked = request(form, method, path);
    shell.textContent = curl(asked);
    status.textContent = "asking …";
    button.disabled = true;
    await send(asked, (line, text, fine) => {
      status.textContent = line;
      status.className = fine ? "" : "bad";
      answer.textContent = text;
      answer.hidden = !text;
    });
    button.disabled = false;
  });
  made.append(form, shell, status, answer);
  return made;
}
