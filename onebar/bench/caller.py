"""An HTTP client that costs next to nothing: one connection, one request at a time."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

from onebar.errors import OneBarError

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class CallError(OneBarError):
    """An answer that can't be used: no HTTP/1.1, no Content-Length, or no 200."""


class Caller:
    """A connection that is kept. Use it as an asynchronous context manager.

    Raises `OSError` where nobody listens, and `ValueError` for an address that is none.
    """

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        """`url` is scheme, host and port; what follows them goes before every path."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected http://HOST:PORT, got {url!r}")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._secure else 80)
        self._base = parts.path.rstrip("/")
        lines = {"Host": parts.netloc.rpartition("@")[2], **(headers or {})}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in lines.items())

    async def __aenter__(self) -> Caller:
        context = ssl.create_default_context() if self._secure else None
        self._reader, self._writer = await asyncio.open_connection(
            self._host, self._port, ssl=context
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    def get(self, path: str) -> bytes:
        """The bytes of a GET, to be sent again and again."""
        return f"GET {self._base}{path} HTTP/1.1\r\n{self._headers}\r\n".encode()

    def post(self, path: str, value: object) -> bytes:
        """The bytes of a POST of JSON."""
        body = json.dumps(value).encode()
        head = (
            f"POST {self._base}{path} HTTP/1.1\r\n{self._headers}"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def ask(self, request: bytes) -> Any:
        """The JSON of an answer. Raises `CallError` where it is not a 200."""
        self._writer.write(request)
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise CallError(f"the server hung up: {error.partial[:200]!r}") from None
        length = _LENGTH.search(head)
        if length is None:
            raise CallError(f"no Content-Length: {head[:200]!r}")
        body = await self._reader.readexactly(int(length[1]))
        if not head.startswith(b"HTTP/1.1 200"):
            status = head.partition(b"\r\n")[0].decode("latin-1")
            raise CallError(f"{status}: {body[:300].decode('utf-8', 'replace')}")
        return json.loads(body)
