"""How answers look: the JSON that is sent, and what of it each caller wants; pure."""

from __future__ import annotations

import random
from binascii import hexlify
from collections.abc import Sequence
from struct import unpack

import msgspec
import orjson
import structlog
from msgspec import Struct

from api.answering.explore import Exploration, explored
from api.http.schemas import Answer, Fallback, Reason
from feature_store.cache.codec import CachedBody
from feature_store.redis.client import StoreUnavailableError
from onebar.gating.repertoire import Constrain
from onebar.gating.wants import Wants, select
from onebar.recommending.candidates import Rejection, choose
from onebar.recommending.grounding import presentable
from onebar.recommending.material import material
from onebar.records import Candidate, Features, Pair, QueryResult

log = structlog.get_logger(__name__)

ID_DIGITS = 24

Hit = tuple[Pair, CachedBody]

_QUERY = b'{"text":'


class Ask(Struct, frozen=True, gc=False):
    """How a request wants to be answered.

    `deadline` is in loop time. `k` None takes the queries as they are kept, and `wants` None all of
    them; with an `exploration` there is a `k`. Without `generate` only the cache and the fallbacks
    are used. A `peek` leaves no trace: it is not counted, and renews nothing. `constrain` is there
    where it is stricter than the gate's. `named` is the answer's `request_id`, where the request is
    for one alone and has been named before.
    """

    deadline: float
    k: int | None = None
    generate: bool = True
    peek: bool = False
    wants: Wants | None = None
    constrain: Constrain | None = None
    exploration: Exploration | None = None
    named: bytes = b""


def why(pair: Pair, error: BaseException) -> Reason:
    """What a failed look into the cache means for the answer."""
    match error:
        case TimeoutError():
            return "deadline"
        case StoreUnavailableError():
            return "store_unavailable"
        case _:
            log.error("lookup_failed", video_id=pair[0], exc_info=error)
            return "store_failed"


def from_anchors(known: Features) -> tuple[Candidate, ...] | Rejection:
    """What other people searched after a video, as queries that a bar has room for, or why none is.
    Pure.

    They are chosen as for an answer with a generation (`choose`), the strongest first. The score
    is the anchor's weight.
    """
    most = len(known.anchors) or 1
    chosen = choose(material(known, ()), (), most, from_text=False, harmful=True)
    if chosen.reason is not None:
        return chosen.reason
    weights = {presentable(anchor.query): anchor.weight for anchor in reversed(known.anchors)}
    queries = (Candidate(query.text, weights[query.text]) for query in chosen.queries)
    return tuple(sorted(queries, key=lambda query: (-query.score, query.text)))


def request_id(ask: Ask) -> str:
    """The name of one answer, to be sent back with exposures and clicks: `ID_DIGITS` hexadecimal
    digits."""
    return (ask.named or _request_ids(1)[0]).decode()


def _request_ids(count: int) -> tuple[bytes, ...]:
    """So many of them.

    They name and keep no secret, so the operating system is not asked for them each time.
    """
    return unpack(f"{ID_DIGITS}s" * count, hexlify(random.randbytes(count * ID_DIGITS // 2)))


def form(source: bytes) -> bytes:
    """How cached bytes become an answer, once `values_of` are put into it."""
    return b'%b,"request_id":"%b","user_id":%b,"source":' + source + b',"age_s":%.3f}'


CACHED = form(b'"cache"')


def values_of(hits: Sequence[Hit], ask: Ask, now: float) -> tuple[bytes | float, ...]:
    """For each pair its cached bytes and the fields of this answer that go behind them."""
    as_kept = ask.k is None and ask.wants is None  # so without exploration too
    values: list[bytes | float] = []
    for ((_, user_id), body), request_id in zip(hits, _request_ids(len(hits)), strict=True):
        age_s = now - body.generated_at
        values += (
            body.body if as_kept else cut(body, ask, request_id),
            request_id,
            _json(user_id),
            age_s if age_s > 0 else 0.0,
        )
    return tuple(values)


def fields_of(pair: Pair, body: CachedBody, ask: Ask, now: float) -> tuple[bytes | float, ...]:
    """`values_of` for one pair alone, without the lists: a lookup takes microseconds."""
    named = ask.named or _request_ids(1)[0]
    kept = body.body if ask.k is None and ask.wants is None else cut(body, ask, named)
    age_s = now - body.generated_at
    return kept, named, _json(pair[1]), age_s if age_s > 0 else 0.0


def cut(body: CachedBody, ask: Ask, named: bytes) -> bytes:
    """Cached bytes with the queries that are wanted in the answer named so; parsed only where they
    may not be all."""
    whole = ask.wants is None and ask.exploration is None
    if whole and (ask.k is None or body.body.count(_QUERY) <= ask.k):
        return body.body
    result = body.result()
    queries = wanted(result.queries, ask, named.decode())
    return encode(msgspec.structs.replace(result, queries=queries))[:-1]


def wanted(queries: tuple[Candidate, ...], ask: Ask, named: str) -> tuple[Candidate, ...]:
    """The queries as the answer named so shows them."""
    found = queries if ask.wants is None else select(queries, ask.wants)
    if ask.exploration is None or ask.k is None:
        return found[: ask.k]
    return explored(found, ask.k, ask.exploration, named)


def age_of(now: float, generated_at: float) -> float:
    return max(0.0, round(now - generated_at, 3))


def from_body(
    kind: Fallback, reason: Reason, pair: Pair, body: CachedBody, ask: Ask, now: float
) -> bytes:
    """Cached bytes that do not answer exactly this pair, or not as of now, as an answer."""
    fields = b'"fallback","fallback":"%b","reason":"%b"' % (kind.encode(), reason.encode())
    return form(fields) % fields_of(pair, body, ask, now)


def empty(pair: Pair, reason: Reason, ask: Ask, *, rejected: bool = False) -> bytes:
    """An answer without queries, and why."""
    return encode(
        Answer(
            request_id=request_id(ask),
            video_id=pair[0],
            user_id=pair[1],
            queries=(),
            source="fallback",
            rejected=rejected,
            fallback="empty",
            reason=reason,
        )
    )


def anchors(pair: Pair, queries: tuple[Candidate, ...], reason: Reason, named: str) -> bytes:
    """The answer named so: what other people searched after the video."""
    return encode(
        Answer(
            request_id=named,
            video_id=pair[0],
            user_id=pair[1],
            queries=queries,
            source="fallback",
            rejected=False,
            fallback="anchors",
            reason=reason,
        )
    )


def from_result(pair: Pair, result: QueryResult, ask: Ask, now: float) -> bytes:
    """An answer that was generated."""
    named = request_id(ask)
    return encode(
        Answer(
            request_id=named,
            video_id=pair[0],
            user_id=pair[1],
            queries=wanted(result.queries, ask, named),
            source="generated",
            rejected=result.rejected,
            rejection=result.rejection,
            model=result.model,
            evidence_digest=result.evidence_digest,
            generated_at=result.generated_at,
            age_s=age_of(now, result.generated_at),
        )
    )


encode = msgspec.json.Encoder().encode
_json = orjson.dumps
