// Calls of the API, its stream of changes, and what the browser keeps.
export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

const store = (area) => ({
  get(name, otherwise) {
    try {
      const found = area().getItem(`onebar-${name}`);
      return found === null ? otherwise : JSON.parse(found);
    } catch { return otherwise; }
  },
  set(name, value) {
    try { area().setItem(`onebar-${name}`, JSON.stringify(value)); } catch { /* private window */ }
  },
});
export const kept = store(() => localStorage);
export const forNow = store(() => sessionStorage);

const headers = (more) => {
  const key = forNow.get("key", "");
  return key ? { ...more, "X-API-Key": key } : { ...more };
};

async function refusal(response) {
  let detail = response.statusText;
  try { detail = (await response.json()).detail || detail; } catch { /* the status says enough */ }
  return new ApiError(response.status, detail);
}

export async function call(path, { method = "GET", json, timeout = 8000 } = {}) {
  const response = await fetch(path, {
    method,
    headers: headers(json === undefined ? {} : { "Content-Type": "application/json" }),
    body: json === undefined ? undefined : JSON.stringify(json),
    cache: "no-store",
    signal: AbortSignal.timeout(timeout),
  });
  if (!response.ok) throw await refusal(response);
  return response.status === 204 ? null : response.json();
}

export const query = (values) => {
  const made = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const each of Array.isArray(value) ? value : [value]) if (each) made.append(name, each);
  }
  return made;
};

// crypto.randomUUID exists only on https and localhost.
export const unique = () => Array.from(crypto.getRandomValues(new Uint32Array(3)), (part) =>
  part.toString(36).padStart(7, "0")).join("");

// Server-sent events, read by fetch: EventSource can't send a key. Connects again until `signal`.
export async function follow(path, signal, told, failed) {
  while (!signal.aborted) {
    try {
      const response = await fetch(path, { headers: headers(), cache: "no-store", signal });
      if (!response.ok) throw await refusal(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        const events = (rest + value).split("\n\n");
        rest = events.pop();
        for (const event of events) {
          const data = event.split("\n").filter((line) => line.startsWith("data: "));
          if (data.length) told(JSON.parse(data.map((line) => line.slice(6)).join("\n")));
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      failed(error);
      if (error.status === 401 || error.status === 403) return;
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}
