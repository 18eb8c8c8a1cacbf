"""Bucketed entries: their field names, the newest-N cut, and the decayed ranking. Pure.

A field is the time bucket in six base-36 digits, then the query. The digits sort as the numbers
do, so the byte order of fields is the order by (bucket, query) in UTF-8, which is also how Python
orders the pairs. The greatest `max_entries` fields count; Lua cuts by the same byte order.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import TypeVar

from feature_store.writes import MILLI, BehaviorAdd, InvalidWriteError
from onebar.errors import OneBarError
from onebar.policy import MAX_SHOWABLE_USERS, StatePolicy
from onebar.records import MAX_COUNTED, Anchor, QueryCounts

BUCKET_CHARS = 6
MAX_BUCKETS: int = 36**BUCKET_CHARS
MAX_ANCHORS = 32
"""Anchors read of a video, unless more are asked for: more than any prompt has room for."""
SLACK = 1.25
"""How far past `max_entries` a hash may grow before it is cut."""

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

BucketedQuery = tuple[int, str]
"""(bucket, query)"""
ASKER_CHARS = 12
Askers = tuple[str, ...]
"""Of the users behind a (bucket, query) the least few, ascending (`asker_of`)."""
Value = TypeVar("Value")


class BucketRangeError(InvalidWriteError):
    """A time that no bucket covers: negative, or too late for buckets this short."""


class CorruptStateError(OneBarError):
    """A stored value that is not what its key promises: something else wrote it."""


@lru_cache(maxsize=4096)
def bucket_prefix(bucket: int) -> str:
    """The six digits of a bucket, which its fields begin with; the query follows. Raises
    `BucketRangeError`."""
    if not 0 <= bucket < MAX_BUCKETS:
        raise BucketRangeError(
            f"expected a time bucket from 0 to {MAX_BUCKETS - 1:,}, got {bucket:,}; "
            "the event's ts is off, or bucket_s is too small"
        )
    digits = ""
    for _ in range(BUCKET_CHARS):
        bucket, digit = divmod(bucket, 36)
        digits = _DIGITS[digit] + digits
    return digits


@lru_cache(maxsize=4096)
def _bucket_number(prefix: bytes) -> int:
    if len(prefix) != BUCKET_CHARS or not prefix.isalnum():
        raise ValueError
    return int(prefix, 36)


def decode_field(field: bytes) -> BucketedQuery:
    """The (bucket, query) of a field. Raises `CorruptStateError`."""
    try:
        return _bucket_number(field[:BUCKET_CHARS]), field[BUCKET_CHARS:].decode()
    except ValueError:
        raise CorruptStateError(f"expected six digits and a query, got {field!r}") from None


def decode_anchors(
    fields: Mapping[bytes, bytes], limit: int
) -> tuple[dict[BucketedQuery, int], dict[BucketedQuery, Askers]]:
    """The entries of an anchors hash that count: in thousandths, and by whom. Raises
    `CorruptStateError`."""
    weights: dict[BucketedQuery, int] = {}
    askers: dict[BucketedQuery, Askers] = {}
    try:
        for field, value in newest(fields, limit).items():
            key = decode_field(field)
            milli, _, users = value.partition(b" ")
            weights[key] = int(milli)
            askers[key] = _decode_askers(users)
    except ValueError:
        raise CorruptStateError("expected integers and users in an anchors hash") from None
    return weights, askers


def _decode_askers(users: bytes) -> Askers:
    if len(users) % ASKER_CHARS or (users and not users.isalnum()):
        raise ValueError
    text = users.decode()
    return tuple(text[at : at + ASKER_CHARS] for at in range(0, len(text), ASKER_CHARS))


def asker_of(user_id: str, video_id: str, query: str) -> str:
    """What is kept of a user who asked a query after a video: 48 bits in hexadecimal digits, others
    for another query or video, so that they tie nothing together that the log does not."""
    named = f"{user_id}\0{video_id}\0{query}".encode()
    return blake2b(named, digest_size=ASKER_CHARS // 2).hexdigest()


def add_asker(askers: Askers, asker: str) -> Askers:
    """The least `MAX_SHOWABLE_USERS` of them, ascending: the same in whatever order they come, and
    any of them repeated changes nothing."""
    if asker in askers:
        return askers
    return tuple(sorted((*askers, asker))[:MAX_SHOWABLE_USERS])


def showable(
    askers: Mapping[BucketedQuery, Askers], policy: StatePolicy, now: float
) -> Callable[[str], bool]:
    """Which queries enough distinct users asked within the look-back.

    Exact: a bucket keeps all of its users, or as many as any threshold asks for.
    """
    if policy.showable_users <= 1:
        return lambda query: True
    since = policy.bucket(max(0.0, now - policy.showable_lookback_s))
    users: dict[str, set[str]] = {}
    for (bucket, query), few in askers.items():
        if bucket >= since:
            users.setdefault(query, set()).update(few)
    return lambda query: len(users.get(query, ())) >= policy.showable_users


def decode_counts(fields: Mapping[bytes, bytes], limit: int) -> dict[BucketedQuery, QueryCounts]:
    """The entries of a counters hash that count. Raises `CorruptStateError`."""
    counts = {}
    for field, value in newest(fields, limit).items():
        try:
            exposures, clicks, engagements = map(int, value.split())
        except ValueError:
            raise CorruptStateError(f"expected three integers, got {value!r}") from None
        counts[decode_field(field)] = QueryCounts(exposures, clicks, engagements)
    return counts


Ordered = TypeVar("Ordered", bytes, BucketedQuery)


def newest(entries: Mapping[Ordered, Value], limit: int) -> Mapping[Ordered, Value]:
    """The `limit` greatest entries: by bytes for fields, by (bucket, query) for pairs."""
    if len(entries) <= limit:
        return entries
    return {key: entries[key] for key in heapq.nlargest(limit, entries)}


def count_increments(write: BehaviorAdd, bucket: int) -> dict[BucketedQuery, QueryCounts]:
    """What a write adds to the counters, one entry per query it names."""
    increments: dict[BucketedQuery, QueryCounts] = {}
    kinds = (
        (write.exposures, QueryCounts(exposures=1)),
        (write.clicks, QueryCounts(clicks=1)),
        (write.engagements, QueryCounts(engagements=1)),
    )
    for queries, one in kinds:
        for query in queries:
            key = (bucket, query)
            increments[key] = add_counts(increments.get(key, QueryCounts()), one)
    return increments


def add_counts(a: QueryCounts, b: QueryCounts, times: int = 1) -> QueryCounts:
    """`a`, and `b` so many times more; none falls below 0."""
    return QueryCounts(
        max(0, a.exposures + times * b.exposures),
        max(0, a.clicks + times * b.clicks),
        max(0, a.engagements + times * b.engagements),
    )


def total_counts(counts: Mapping[BucketedQuery, QueryCounts]) -> dict[str, QueryCounts]:
    """Counts per query, over all buckets."""
    totals: dict[str, QueryCounts] = {}
    for (_, query), more in counts.items():
        total = totals.get(query, QueryCounts())
        totals[query] = add_counts(total, more)
    return totals


def most_exposed(counts: Mapping[str, QueryCounts]) -> tuple[tuple[str, int, int, int], ...]:
    """(query, exposures, clicks, engagements) of what a ranker looks at, the most exposed first."""
    order = sorted(counts, key=lambda query: (-counts[query].exposures, query))[:MAX_COUNTED]
    return tuple(
        (query, counts[query].exposures, counts[query].clicks, counts[query].engagements)
        for query in order
    )


def rank_anchors(
    entries: Mapping[BucketedQuery, int],
    policy: StatePolicy,
    now: float,
    may_be_shown: Callable[[str], bool] = lambda query: True,
) -> tuple[Anchor, ...]:
    """Anchors from (bucket, query) -> thousandths, strongest first, those that may not be shown to
    others among them.

    weight = sum of thousandths/1000 * 2^(-age/half_life), where a bucket's age is the time from
    its end to `now`, or to the end of the newest bucket while that still runs. So `now` scales
    all weights alike and the order stays the same until something new happens; equal weights
    are ordered by query. A weight is never 0, however old.
    """
    if not entries:
        return ()
    latest = max(bucket for bucket, _ in entries)
    decay = policy.bucket_s / policy.half_life_s
    decayed: dict[str, float] = {}
    for (bucket, query), milli in sorted(entries.items(), reverse=True):
        decayed[query] = decayed.get(query, 0.0) + milli * 2.0 ** ((bucket - latest) * decay)
    age = max(0.0, now - (latest + 1) * policy.bucket_s)
    scale = 2.0 ** (-age / policy.half_life_s) / MILLI
    ranked = sorted(decayed.items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        Anchor(query, max(value * scale, sys.float_info.min), showable=may_be_shown(query))
        for query, value in ranked
    )


def shown_anchors(anchors: Iterable[Anchor]) -> tuple[Anchor, ...]:
    """Those that others may be shown."""
    return tuple(anchor for anchor in anchors if anchor.showable)


def merge_neighbors(
    anchors: tuple[Anchor, ...], neighbors: Iterable[Anchor], limit: int
) -> tuple[Anchor, ...]:
    """The anchors, then the neighbours' that add a query, `limit` at most."""
    merged = {anchor.query: anchor for anchor in anchors[:limit]}
    for neighbor in neighbors:
        if len(merged) >= limit:
            break
        merged.setdefault(neighbor.query, neighbor)
    return tuple(merged.values())
