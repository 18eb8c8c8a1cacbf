"""From what was chosen for an evidence to what one user sees of it: what they are tired of stands
behind, what is not to come again is left out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from onebar.evidence.text import normalize_query
from onebar.records import Candidate, Features

LeaveOut = Literal["nothing", "ordered", "tapped"]
"""What a user is not shown again."""


def settle(
    queries: Sequence[Candidate], known: Features, *, leave_out: LeaveOut, personal: bool
) -> tuple[Candidate, ...]:
    """The queries in the order in which they are to be shown.

    What all are tired of under this video (`Features.tired`) goes behind the others; where it is
    `personal`, what this user is tired of does too, and what they ordered by, or tapped at all, is
    left out. Among themselves those before and those behind keep their order.
    """
    tired, out = known.tired, frozenset[str]()
    if personal:
        own = known.reactions
        tired |= own.tired
        if leave_out != "nothing":
            out = own.ordered if leave_out == "ordered" else own.ordered | own.tapped
    if not tired and not out:
        return tuple(queries)
    named = [(normalize_query(query.text), query) for query in queries]
    left = [(name, query) for name, query in named if name not in out]
    return (
        *(query for name, query in left if name not in tired),
        *(query for name, query in left if name in tired),
    )
