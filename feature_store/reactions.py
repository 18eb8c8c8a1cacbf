"""What users had to do with what bars showed them: how it is kept, and what follows from it. Pure.

Two sorted sets of a user. *Tapped* has a query once, with its newest time; *shown* has it once for
each time it was shown. Both keep the newest, by (ts, member), which is the same in whatever order
events came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from feature_store.writes import ReactionPut
from onebar.policy import StatePolicy
from onebar.records import NO_REACTIONS, QueryCounts, Reactions

DIGEST_CHARS = 12
_TAPPED, _ORDERED = "t", "o"


def members(write: ReactionPut) -> tuple[str, ...]:
    """What stands in the set for a write's queries."""
    if write.kind == "shown":
        digest = blake2b(write.event_id.encode(), digest_size=DIGEST_CHARS // 2).hexdigest()
        return tuple(digest + query for query in write.queries)
    mark = _TAPPED if write.kind == "tapped" else _ORDERED
    return tuple(mark + query for query in write.queries)


def size_of(write: ReactionPut, policy: StatePolicy) -> int:
    """How many of its kind the policy keeps of a user."""
    return policy.shown_size if write.kind == "shown" else policy.tapped_size


def reactions(
    tapped: Mapping[str, float], shown: Mapping[str, float], policy: StatePolicy
) -> Reactions:
    """What a user is tired of, tapped and ordered by, from the members of both sets with their
    times."""
    taps: dict[str, float] = {}
    for member, ts in tapped.items():
        taps[member[1:]] = max(ts, taps.get(member[1:], ts))
    tired: frozenset[str] = frozenset()
    if policy.tired_user_shows:
        times = Counter(
            query
            for member, ts in shown.items()
            if ts > taps.get(query := member[DIGEST_CHARS:], -1.0)
        )
        tired = frozenset(q for q, count in times.items() if count >= policy.tired_user_shows)
    if not tired and not tapped:
        return NO_REACTIONS
    return Reactions(tired, _of(_TAPPED, tapped), _of(_ORDERED, tapped))


def tired_of(counts: Mapping[str, QueryCounts], policy: StatePolicy) -> frozenset[str]:
    """What all are tired of under a video, from its counters."""
    if not policy.tired_shows:
        return frozenset()
    return frozenset(
        query
        for query, count in counts.items()
        if count.exposures >= policy.tired_shows and not count.clicks
    )


def _of(mark: str, tapped: Iterable[str]) -> frozenset[str]:
    return frozenset(member[1:] for member in tapped if member.startswith(mark))
