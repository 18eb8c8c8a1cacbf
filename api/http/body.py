"""Reading a request's body: JSON, of so many bytes at most, there in time, while there is room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from api.http.metrics import SHED
from api.http.problems import ProblemError, too_large
from api.http.room import Room

JSON = frozenset((b"application/json",))


class Bodies:
    """Reads the bodies of requests that say what they are."""

    def __init__(self, room: Room, *, timeout_s: float) -> None:
        self._room = room
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def read(
        self, scope: Any, receive: Any, limit: int, types: frozenset[bytes] = JSON
    ) -> AsyncIterator[bytes]:
        """The body of a request, which has its room up to the end of the block.

        Raises `ProblemError`: 415 for another content type (a browser sends no other without asking
        first, so a strange page can't post for its visitor) or an encoding, 413 over `limit` bytes,
        503 where there is no room for it, 408 where it is not there in time, 400 where it ends
        early.
        """
        held = expected = _announced(scope, limit, types)
        self._room.take(held)
        try:
            body = bytearray()
            try:
                async with asyncio.timeout(self._timeout_s):
                    more = True
                    while more:
                        message = await receive()
                        if message["type"] == "http.disconnect":
                            raise ProblemError(400, "disconnected", "The body ended early.")
                        body += message.get("body", b"")
                        if len(body) > limit:
                            raise too_large(limit)
                        if len(body) > held:
                            self._room.take(len(body) - held)
                            held = len(body)
                        more = message.get("more_body", False)
            except TimeoutError:
                SHED.labels("body_timeout").inc()
                raise ProblemError(
                    408,
                    "body-timeout",
                    f"{len(body):,} of {expected or 'an unknown number of'} bytes were there after "
                    f"{self._timeout_s:g} s.",
                    headers={"Connection": "close"},
                ) from None
            yield bytes(body)
        finally:
            self._room.give_back(held)


def media_type(scope: Any) -> bytes:
    """What a request says its body is, without parameters."""
    found = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return bytes(found.partition(b";")[0].strip().lower())


def _announced(scope: Any, limit: int, types: frozenset[bytes]) -> int:
    """The length that a request says its body has; 0 where it says none. Raises `ProblemError`."""
    length = encoding = b""
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = value
        elif name == b"content-encoding":
            encoding = value
    said = media_type(scope)
    if said not in types:
        raise ProblemError(
            415,
            "unsupported-media-type",
            f"Expected Content-Type: {b' or '.join(sorted(types)).decode()}, "
            f"got {said[:100].decode('latin-1')!r}.",
        )
    if encoding.strip().lower() not in (b"", b"identity"):
        raise ProblemError(
            415,
            "unsupported-encoding",
            f"A body is taken as it is, not {encoding[:100].decode('latin-1')!r}.",
            headers={"Accept-Encoding": "identity"},
        )
    if not length.isdigit():
        return 0
    size = int(length[:20])
    if size > limit:
        raise too_large(limit)
    return size
