"""A teacher behind HTTP for tests: a real server on the loopback that says what it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[str], "str | tuple[int, str]"]
"""Takes the last turn of a conversation; an answer, or a status and a body."""


class Endpoint:
    """Where it listens, and every request body it got."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.models = ["little"]


@contextmanager
def endpoint(say: Say, port: int = 0) -> Iterator[Endpoint]:
    """Serve `say` as an OpenAI-compatible endpoint until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            listed = {"data": [{"id": name} for name in found.models]}
            self._send(200 if self.path == "/v1/models" else 404, json.dumps(listed))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/chat/completions":
                self._send(404, "no such page")
                return
            found.asked.append(body)
            found.keys.append(self.headers.get("Authorization"))
            answer = say(body["messages"][-1]["content"])
            if isinstance(answer, tuple):
                self._send(*answer)
                return
            message = {"role": "assistant", "content": answer}
            usage = {"prompt_tokens": 100, "completion_tokens": 10}
            self._send(200, json.dumps({"choices": [{"message": message}], "usage": usage}))

        def _send(self, status: int, text: str) -> None:
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    found = Endpoint(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
