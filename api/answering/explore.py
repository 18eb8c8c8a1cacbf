"""Exploration: now and then another query stands in one place, so that a log tells of it. Pure.

With a share ε one of the M queries behind the place changes places with the one in it, each as
likely as the other. The answer says how likely each query was to stand where it stands: 1 − ε for
the first in its place and ε/M for one that took it; behind, ε/M for the one that was sent there and
1 − ε/M for one that stayed. Which it is hangs on the answer's `request_id` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct, structs

from onebar.gating.gate import PINNED_SCORE
from onebar.records import Candidate

_BITS = 64


class Exploration(Struct, frozen=True):
    """With which `share` (0 to 1) the query in a `slot` (from 0) gives way."""

    share: float
    slot: int


def explored(
    queries: Sequence[Candidate], k: int, exploration: Exploration, request_id: str
) -> tuple[Candidate, ...]:
    """The first `k` (>= 1) queries as an answer with this id shows them; those behind the k-th may
    come into the slot. A pinned query gives way to nobody, and no query that was not among
    `queries` comes up. The same for the same arguments.
    """
    share, slot = exploration.share, exploration.slot
    behind = len(queries) - slot - 1
    if slot >= k or behind < 1 or share <= 0 or queries[slot].score == PINNED_SCORE:
        return tuple(queries[:k])
    digest = blake2b(f"explore\0{request_id}".encode(), digest_size=2 * _BITS // 8).digest()
    half = len(digest) // 2
    swapped = int.from_bytes(digest[:half], "big") < share * 2**_BITS
    taker = slot + 1 + int.from_bytes(digest[half:], "big") % behind
    each = share / behind
    shown = list(queries)
    if swapped:
        shown[slot], shown[taker] = shown[taker], shown[slot]
    told = [
        structs.replace(
            query,
            propensity=(each if swapped else 1 - share)
            if at == slot
            else (each if swapped and at == taker else 1 - each),
        )
        for at, query in enumerate(shown[slot:k], slot)
    ]
    return (*shown[:slot], *told)
