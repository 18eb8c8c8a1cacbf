"""Answers that are long are compressed for those who ask for it; short ones never are."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable

Header = tuple[bytes, bytes]

LEAST_BYTES = 4096
"""Shorter ones are sent sooner than they are compressed."""
ALONE_BYTES = 32 * 1024
"""Longer ones are compressed in a thread, as they would hold up others for a millisecond."""
LEVEL = 4
"""Beyond it each takes far longer for a few hundredths of the size."""
_TEXT = (b"text/", b"application/json", b"application/problem+json", b"image/svg+xml")

VARY = (b"vary", b"Accept-Encoding")
"""Said of whatever may come compressed."""
GZIP = (b"content-encoding", b"gzip")


def compressible(headers: Iterable[Header], length: int) -> bool:
    """Whether a body of this length with these headers is worth it."""
    if length < LEAST_BYTES:
        return False
    text = False
    for name, value in headers:
        if name == b"content-encoding":
            return False
        if name == b"content-type":
            text = value.startswith(_TEXT)
    return text


def wanted(headers: Iterable[Header]) -> bool:
    """Whether the request that has these headers takes gzip."""
    asked = b",".join(value for name, value in headers if name == b"accept-encoding")
    weights = {}
    for part in asked.lower().split(b","):
        coding, *parameters = (piece.strip() for piece in part.split(b";"))
        weights[coding] = not any(_is_zero(each) for each in parameters)
    return weights.get(b"gzip", weights.get(b"*", False))


def _is_zero(parameter: bytes) -> bool:
    name, _, value = parameter.partition(b"=")
    return name.strip() == b"q" and not value.strip(b" .0")


async def gzipped(body: bytes) -> bytes:
    """The body compressed; the same bytes for the same body."""
    if len(body) < ALONE_BYTES:
        return gzip.compress(body, LEVEL, mtime=0)
    return await asyncio.to_thread(gzip.compress, body, LEVEL, mtime=0)
