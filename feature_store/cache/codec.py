"""What the query cache keeps: a ready-to-send body, or the mark that it is the video's; pure."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct, structs

from feature_store.buckets import CorruptStateError
from feature_store.plan import seal_of
from onebar.records import NO_SEAL, UNSEALED, Pair, QueryResult, Seals

_HEADER = struct.Struct(">4sId8s8sQ")
"""Kind, checksum of the body, when its evidence was read, the seals of video and user that this
stands under, and the rules that it has passed. `cached.lua` reads it as well."""
_BODY = b"OBQ2"
_SAME = b"OBQ="
_MODEL = b'"model":"'


class CachedBody(Struct, frozen=True, gc=False):
    """Cached queries. `body` is the JSON object of a `QueryResult` without its closing brace, so
    that the fields of one answer can be put behind it. Times are UTC epoch seconds; from
    `fresh_until` on it is still good to serve, but due to be generated anew. It is void where
    `seal` is not the video's any more. `passed` names the rules that its queries have passed.
    """

    generated_at: float
    fresh_until: float
    body: bytes
    seal: bytes = NO_SEAL
    passed: int = 0

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
    seal: bytes = NO_SEAL


Own = CachedBody | Mark


def encode_body(result: QueryResult, seals: Seals = UNSEALED, passed: int = 0) -> bytes:
    """What is kept of a result."""
    body = msgspec.json.encode(result)[:-1]
    checksum = zlib.crc32(body)
    header = _BODY, checksum, result.generated_at, seals.video, seals.user, passed
    return _HEADER.pack(*header) + body


def encode_mark(generated_at: float, seals: Seals = UNSEALED) -> bytes:
    """What is kept for a user whose body is the video's."""
    return _HEADER.pack(_SAME, 0, generated_at, seals.video, seals.user, 0)


def decode_body(value: bytes | None, soft_ttl_s: float) -> CachedBody | None:
    """The body kept; None where there is none, or it is damaged or none of ours."""
    if value is None or len(value) < _HEADER.size:
        return None
    magic, checksum, generated_at, seal, _, passed = _HEADER.unpack_from(value)
    body = value[_HEADER.size :]
    if magic != _BODY or zlib.crc32(body) != checksum:
        return None
    return CachedBody(generated_at, generated_at + soft_ttl_s, body, seal, passed)


def decode_own(value: bytes | None, soft_ttl_s: float, user_seal: bytes) -> Own | None:
    """A user's own body, or the mark; None as in `decode_body`, and where the user's seal is
    another: the user was forgotten since."""
    if value is None or len(value) < _HEADER.size or value[_USER_SEAL] != user_seal:
        return None
    if not value.startswith(_SAME):
        return decode_body(value, soft_ttl_s)
    _, _, generated_at, seal, _, _ = _HEADER.unpack_from(value)
    return Mark(generated_at, seal)


_USER_SEAL = slice(24, 32)
HEADER_BYTES = _HEADER.size


def read_at_of(head: bytes) -> float | None:
    """When the evidence of a body or a mark was read, by its first `HEADER_BYTES`; None for what is
    none of ours."""
    if len(head) < HEADER_BYTES:
        return None
    kind, _, read_at, *_ = _HEADER.unpack_from(head)
    return read_at if kind in (_BODY, _SAME) else None


def is_void(made: Own, seal: bytes | None) -> bool:
    """Whether the video's text is another by now. Where there is no seal the video has not changed
    for longer than anything is cached."""
    return seal is not None and made.seal != seal


class Answering(Struct, frozen=True, gc=False):
    """What is cached for one pair, and the parts of it: the user's own value, None too where the
    user was forgotten since, and the video's seal."""

    pair: Pair
    lookup: Lookup
    own: Own | None
    seal: bytes | None


def decode_answering(
    pairs: Iterable[Pair], values: Iterable[bytes | None], soft_ttl_s: float
) -> Iterator[Answering]:
    """From the values of `Keys.answering`: what is cached for each pair, without what is void."""
    value = iter(values)
    for pair in pairs:
        video, seal = decode_body(next(value), soft_ttl_s), next(value)
        if video is not None and is_void(video, seal):
            video = None
        own = None
        if pair[1] is not None:
            kept, deletion = next(value), next(value)
            own = decode_own(kept, soft_ttl_s, seal_of(deletion))
            if own is not None and is_void(own, seal):
                own = None
        yield Answering(pair, Lookup(personal_body(own, video, soft_ttl_s), video), own, seal)


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
