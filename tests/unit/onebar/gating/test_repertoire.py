"""The repertoire: what is in it, what changed, what is near a text."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from onebar.gating.follow import RepertoireFollower
from onebar.gating.gate import Gate
from onebar.gating.repertoire import STRICTNESS, Constrain, Repertoire, stricter
from onebar.gating.rules import About, RuleBook, check_rule
from onebar.records import Candidate, Rule

QUERY = st.sampled_from(["red shoes", "blue shoes", "wool socks", "红色 鞋"])
CHANGE = st.tuples(st.sampled_from(["add", "remove", "allow", "ban", "undecide"]), QUERY)


@given(st.lists(CHANGE), st.integers(0, 40))
def test_who_follows_the_changes_has_the_same_queries(
    changes: list[tuple[str, str]], looked_at: int
) -> None:
    repertoire = Repertoire()
    number, followed = 0, set[str]()
    known: set[str] = set()
    ruled: dict[str, bool] = {}
    for at, (what, query) in enumerate(changes):
        match what:
            case "add":
                repertoire.add(query)
                known.add(query)
            case "remove":
                repertoire.remove(query)
                known.discard(query)
            case "undecide":
                repertoire.decide(query, None)
                ruled.pop(query, None)
            case _:
                repertoire.decide(query, what == "allow")
                ruled[query] = what == "allow"
        expected = {q for q in known | ruled.keys() if ruled.get(q, q in known)}
        assert set(repertoire.queries()[1]) == expected
        assert {q for q in known | ruled.keys() if q in repertoire} == expected
        assert set(repertoire.near(["shoes socks 鞋 red"], 9)) <= expected
        if at == looked_at or at + 1 == len(changes):
            found = repertoire.changes_since(number)
            assert found is not None
            number, new = found
            for changed, said in new:
                (followed.add if said else followed.discard)(changed)
            assert followed == expected


def test_who_is_too_far_behind_reads_all_anew() -> None:
    repertoire = Repertoire(f"query {n}" for n in range(10_001))
    assert repertoire.changes_since(0) is None
    assert repertoire.changes_since(1) is not None


def test_near_are_those_that_say_most_of_the_text_and_least_beside() -> None:
    repertoire = Repertoire(
        ["red running shoes", "shoes", "red shoes for women", "garden hose", "shoes and a hat"]
    )
    assert repertoire.near(["Red shoes"], 3) == (
        "shoes",
        "red running shoes",
        "red shoes for women",
    )
    assert repertoire.near(["nothing of it"], 3) == ()


def test_a_request_can_only_be_stricter() -> None:
    modes: list[Constrain] = list(STRICTNESS)
    for one in modes:
        assert stricter(one, None) == one
        for other in modes:
            assert STRICTNESS[stricter(one, other)] == max(STRICTNESS[one], STRICTNESS[other])


class Shelf:
    """A store of a repertoire."""

    def __init__(self) -> None:
        self.at = self.cut = 0
        self.queries: dict[str, int] = {}
        self.gone: dict[str, int] = {}
        self.forgets = False

    def put(self, *queries: str) -> None:
        self.at += 1
        for query in self.queries.keys() - set(queries):
            del self.queries[query]
            self.gone[query], self.cut = self.at, self.at
        for query in queries:
            self.queries.setdefault(query, self.at)
            self.gone.pop(query, None)

    async def version(self) -> tuple[int, int]:
        return self.at, self.cut

    async def since(self, version: int) -> tuple[Sequence[str], Sequence[str]] | None:
        if self.forgets and version:
            return None
        return (
            [query for query, at in self.queries.items() if at > version],
            [query for query, at in self.gone.items() if at > version],
        )


async def test_a_gate_follows_what_is_told() -> None:
    shelf, gate = Shelf(), Gate(constrain="only")
    follower = RepertoireFollower(shelf, gate)
    before = gate.passed(0.0)
    shelf.put("red shoes", "hat")
    await follower.look()
    assert gate.repertoire.all_known() == {"red shoes", "hat"}
    assert gate.passed(0.0) == before  # nothing went: what passed still does
    shelf.put("hat", "wok")
    await follower.look()
    assert gate.repertoire.all_known() == {"hat", "wok"}
    assert gate.passed(0.0) != before
    shelf.forgets = True
    shelf.put("tea")
    await follower.look()
    assert gate.repertoire.all_known() == {"tea"}
    fresh = Shelf()
    await RepertoireFollower(fresh, gate).look()
    assert gate.repertoire.all_known() == set()


def rule(rule_id: str, action: str, **fields: object) -> Rule:
    return check_rule(Rule(rule_id, action, **fields))  # type: ignore[arg-type]


def texts(gate: Gate, *queries: str, video: str = "v", anchors: tuple[str, ...] = ()) -> list[str]:
    found = gate.apply(
        [Candidate(query, -1.0) for query in queries], About(video), 0.0, anchors=anchors
    )
    return [query.text for query in found.queries]


def test_only_what_did_well_or_is_tied_to_the_video_or_allowed_passes() -> None:
    rules = [
        rule("a", "allow", query="allowed"),
        rule("w", "allow", word="worded"),
        rule("s", "allow", query="elsewhere", video_id="other"),
        rule("p", "pin", query="pinned", video_id="v"),
        rule("b", "block", query="blocked"),
    ]
    gate = Gate(RuleBook(rules), constrain="only")
    gate.repertoire.add("well")
    gate.repertoire.add("blocked")
    asked = ("Well", "new", "anchor", "allowed", "worded", "elsewhere", "blocked")
    assert texts(gate, *asked, anchors=("anchor",)) == ["pinned", "Well", "anchor", "allowed"]
    assert texts(gate, "elsewhere", video="other") == ["elsewhere"]
    assert "blocked" not in gate.repertoire
    assert "allowed" in gate.repertoire
    gate.take("b", None)
    gate.take("a", None)
    assert "blocked" in gate.repertoire
    assert "allowed" not in gate.repertoire


def test_what_is_preferred_stands_first_and_nothing_is_held_back() -> None:
    gate = Gate(constrain="prefer")
    gate.repertoire.add("c")
    assert texts(gate, "a", "b", "c", "d", anchors=("d",)) == ["c", "d", "a", "b"]
