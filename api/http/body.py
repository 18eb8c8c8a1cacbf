"""Reading a request's body: JSON, of so many bytes at most."""

from __future__ import annotations

from typing import Any

from api.http.problems import ProblemError, too_large


async def read_body(scope: Any, receive: Any, limit: int) -> bytes:
    """The body of a request that says it is JSON.

    Raises `ProblemError`: 415 for another content type (a browser sends no other without asking
    first, so a strange page can't post for its visitor), 413 over `limit` bytes, 400 where it ends
    early.
    """
    media_type = length = b""
    for name, value in scope["headers"]:
        if name == b"content-type":
            media_type = value
        elif name == b"content-length":
            length = value
    media_type = media_type.partition(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise ProblemError(
            415,
            "unsupported-media-type",
            f"Expected Content-Type: application/json, got {media_type[:100].decode('latin-1')!r}.",
        )
    if length.isdigit() and int(length[:20]) > limit:
        raise too_large(limit)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ProblemError(400, "disconnected", "The body ended early.")
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_large(limit)
        if not message.get("more_body", False):
            return bytes(body)
