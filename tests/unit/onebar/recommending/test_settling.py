"""What a user sees of what was chosen: the tired behind, the done left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onebar.recommending.settling import LeaveOut, settle
from onebar.records import Candidate, Features, Reactions

LETTERS = "abcdef"
some = st.frozensets(st.sampled_from(LETTERS))
lists = st.lists(st.sampled_from(LETTERS), unique=True)


def shown(queries: list[str], known: Features, leave_out: LeaveOut, personal: bool) -> list[str]:
    candidates = [Candidate(query.upper(), -float(at)) for at, query in enumerate(queries)]
    found = settle(candidates, known, leave_out=leave_out, personal=personal)
    assert set(found) <= set(candidates)
    return [query.text.lower() for query in found]


@given(lists, some, some, some, some, st.sampled_from(["nothing", "ordered", "tapped"]))
def test_order_is_kept_and_nothing_is_lost_but_what_is_to_be_left_out(
    queries: list[str],
    tired: frozenset[str],
    mine: frozenset[str],
    tapped: frozenset[str],
    ordered: frozenset[str],
    leave_out: LeaveOut,
) -> None:
    known = Features(tired=tired, reactions=Reactions(mine, tapped, ordered))
    out = {"nothing": frozenset(), "ordered": ordered, "tapped": tapped | ordered}[leave_out]
    left = [query for query in queries if query not in out]
    weary = tired | mine
    assert shown(queries, known, leave_out, True) == [
        *(query for query in left if query not in weary),
        *(query for query in left if query in weary),
    ]
    assert shown(queries, known, leave_out, False) == [
        *(query for query in queries if query not in tired),
        *(query for query in queries if query in tired),
    ]
