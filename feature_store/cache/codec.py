"""What the query cache keeps: a ready-to-send body, or the mark that it is the video's; pure."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct, structs

from feature_store.buckets import CorruptStateError
from feature_store.plan import decode_deletion
from onebar.records import Pair, QueryResult

DELETION_GRACE_S = 60.0
"""A user's own body generated up to this long after a deletion was applied is not served: it may
have been generated from what was read just before."""

_HEADER = struct.Struct(">4sId")
_BODY = b"OBQ1"
_SAME = b"OBQ="
_MODEL = b'"model":"'


class CachedBody(Struct, frozen=True, gc=False):
    """Cached queries. `body` is the JSON object of a `QueryResult` without its closing brace, so
    that the fields of one answer can be put behind it. Times are UTC epoch seconds; from
    `fresh_until` on it is still good to serve, but due to be generated anew.
    """

    generated_at: float
    fresh_until: float
    body: bytes

    @property
    def model(self) -> str:
        """The name of the model that generated it, found without decoding the body.

        Inside a string of the body every quote is escaped, so no query can forge it.
        """
        start = self.body.rfind(_MODEL) + len(_MODEL)
        return self.body[start : self.body.find(b'"', start)].decode("utf-8", "replace")

    def result(self) -> QueryResult:
        """The result it was made from. Raises `CorruptStateError`."""
        try:
            return msgspec.json.decode(self.body + b"}", type=QueryResult)
        except msgspec.DecodeError as error:
            raise CorruptStateError(f"expected cached queries: {error}") from None


class Lookup(Struct, frozen=True, gc=False):
    """What is cached for one (video, user). `personal` is this user's own queries, which may be
    the video's; it is None where no user was named.
    """

    personal: CachedBody | None = None
    video: CachedBody | None = None


class Mark(Struct, frozen=True, gc=False):
    """In the place of a user's own body: it is the video's, found so at `generated_at`."""

    generated_at: float


Own = CachedBody | Mark


def encode_body(result: QueryResult) -> bytes:
    """What is kept of a result."""
    body = msgspec.json.encode(result)[:-1]
    return _HEADER.pack(_BODY, zlib.crc32(body), result.generated_at) + body


def encode_mark(generated_at: float) -> bytes:
    """What is kept for a user whose body is the video's."""
    return _HEADER.pack(_SAME, 0, generated_at)


def decode_body(value: bytes | None, soft_ttl_s: float) -> CachedBody | None:
    """The body kept; None where there is none, or it is damaged or none of ours."""
    if value is None or len(value) < _HEADER.size:
        return None
    magic, checksum, generated_at = _HEADER.unpack_from(value)
    body = value[_HEADER.size :]
    if magic != _BODY or zlib.crc32(body) != checksum:
        return None
    return CachedBody(generated_at, generated_at + soft_ttl_s, body)


def decode_own(value: bytes | None, soft_ttl_s: float) -> Own | None:
    """A user's own body, or the mark; None as in `decode_body`."""
    if value is None or not value.startswith(_SAME):
        return decode_body(value, soft_ttl_s)
    return Mark(_HEADER.unpack_from(value)[2]) if len(value) >= _HEADER.size else None


def forgotten_until(deletion: bytes | None) -> float:
    """Bodies generated up to then (UTC epoch seconds) are not for a user with this deletion."""
    if deletion is None:
        return -math.inf
    try:
        return decode_deletion(deletion)[1] + DELETION_GRACE_S
    except CorruptStateError:
        return math.inf  # someone was deleted, nobody knows when


def decode_answering(
    pairs: Iterable[Pair], values: Iterable[bytes | None], soft_ttl_s: float
) -> Iterator[tuple[Pair, Lookup, Own | None]]:
    """From the values of `Keys.answering`, for each pair: what is cached for it, and the user's own
    value, None too where the user was forgotten since."""
    value = iter(values)
    for pair in pairs:
        video = decode_body(next(value), soft_ttl_s)
        own = None
        if pair[1] is not None:
            own, forgotten = decode_own(next(value), soft_ttl_s), forgotten_until(next(value))
            if own is not None and own.generated_at <= forgotten:
                own = None
        yield pair, Lookup(personal_body(own, video, soft_ttl_s), video), own


def personal_body(
    own: Own | None, video: CachedBody | None, soft_ttl_s: float
) -> CachedBody | None:
    """What a user is served from an `own` value, if anything: a mark stands for the video's body,
    and ages by itself."""
    if own is None or isinstance(own, CachedBody):
        return own
    if video is None:
        return None
    fresh_until = min(video.fresh_until, own.generated_at + soft_ttl_s)
    return structs.replace(video, fresh_until=fresh_until)
