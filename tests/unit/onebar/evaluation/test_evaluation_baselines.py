"""Baselines, the cascade, and slices, on logs small enough to follow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.evaluation.baselines.cascade import Cascade
from onebar.evaluation.baselines.simple import AnchorsAlone, Popularity, TitleCopy
from onebar.evaluation.slices import click_counts, head_queries, slices
from onebar.recommending.candidates import REJECT
from onebar.triggers import EmptyDatasetError, Kind, Shown, Trigger

THINGS = ("red running shoes", "garden hose", "chocolate cake", "yoga mat", "desk lamp")


def trigger(
    number: int,
    target: str,
    *,
    text: str = "",
    category: str = "",
    kind: Kind = "click",
    anchors: tuple[str, ...] = (),
    history: tuple[str, ...] = (),
    shown: tuple[str, ...] = (),
    behaviors: int = 0,
) -> Trigger:
    return Trigger(
        trigger_id=f"t{number}",
        kind=kind,
        ts=float(number),
        video_id=f"v{number}",
        user_id=f"u{number % 7}",
        category=category,
        text=text,
        target=target,
        anchors=anchors,
        history=history,
        shown=tuple(Shown(query, at, query == target) for at, query in enumerate(shown)),
        video_behaviors=behaviors,
    )


def train() -> list[Trigger]:
    """Every video names its thing, and what is clicked is `cheap` and the thing."""
    found = []
    for number in range(200):
        thing = THINGS[number % 5]
        wrong = f"{thing} broken"
        if number % 20 == 19:
            found.append(trigger(number, REJECT, kind="reject", text=f"online casino bets {thing}"))
        elif number % 10 == 8:
            found.append(trigger(number, wrong, kind="search", text=f"look at this {thing}"))
        else:
            query = f"cheap {thing}"
            shown = (wrong, query)
            found.append(trigger(number, query, text=f"look at this {thing}", shown=shown))
    return found


def test_title_copy_gives_the_parts_of_the_text_normalised() -> None:
    found = TitleCopy().predict([trigger(0, "x", text="Red  Shoes | $ | red shoes | My shop")], 8)
    assert found[0].queries == ("red shoes", "my shop")
    assert not found[0].rejected


def test_anchors_stand_in_their_order() -> None:
    found = AnchorsAlone().predict([trigger(0, "x", anchors=("b", "a", "c"))], 2)
    assert found[0].queries == ("b", "a")


def test_popularity_is_by_category_and_of_all_where_that_is_unknown() -> None:
    clicks = [
        *(trigger(n, "shoes", category="wear") for n in range(2)),
        trigger(3, "hat", category="wear"),
        *(trigger(n, "cake", category="food") for n in range(4, 8)),
        trigger(9, "never", category="wear", kind="search"),
    ]
    asked = [trigger(0, "x", category=c) for c in ("wear", "food", "", "new")]
    found = Popularity(clicks).predict(asked, 2)
    assert [p.queries for p in found] == [
        ("shoes", "hat"),
        ("cake",),
        ("cake", "shoes"),
        ("cake", "shoes"),
    ]


def test_the_cascade_finds_what_is_clicked_under_videos_like_this() -> None:
    cascade = Cascade(train())
    asked = [trigger(500 + n, "", text=f"my new {thing}") for n, thing in enumerate(THINGS)]
    found = cascade.predict(asked, 3)
    assert [p.queries[0] for p in found] == [f"cheap {thing}" for thing in THINGS]
    assert all(len(p.queries) <= 3 and not p.rejected for p in found)


def test_the_cascade_rejects_what_was_rejected_before() -> None:
    found = Cascade(train()).predict([trigger(1, "", text="online casino bets yoga mat")], 8)
    assert found[0].rejected
    assert found[0].queries == ()


def test_the_cascade_is_deterministic_and_blind_to_outcomes() -> None:
    asked = [trigger(500, "", text="a garden hose", anchors=("garden hose reviews",))]
    told = [
        trigger(
            *(500, "cheap desk lamp"),
            text="a garden hose",
            anchors=("garden hose reviews",),
            shown=("cheap desk lamp",),
        )
    ]
    found = Cascade(train()).predict(asked, 8)
    assert found == Cascade(train()).predict(asked, 8)
    assert found == Cascade(train()).predict(told, 8)
    assert "garden hose reviews" in found[0].queries


def test_a_cascade_needs_clicks() -> None:
    with pytest.raises(EmptyDatasetError, match="no clicks"):
        Cascade([t for t in train() if t.kind != "click"])


def test_a_cascade_of_one_click_still_answers() -> None:
    cascade = Cascade([trigger(0, "red shoes", text="shoes")])
    assert cascade.predict([trigger(1, "", text="shoes")], 8)[0].queries == ("red shoes",)


def test_the_head_is_the_fewest_queries_with_half_of_the_clicks() -> None:
    assert head_queries({"a": 5, "b": 3, "c": 2}) == {"a"}
    assert head_queries({"a": 4, "b": 4, "c": 2}) == {"a", "b"}
    assert head_queries({}) == frozenset()


def test_slices_are_masks_over_the_triggers() -> None:
    clicks = click_counts(
        [
            *(trigger(n, "shoes") for n in range(3)),
            trigger(4, "hat"),
            trigger(5, "cap", kind="search"),
        ]
    )
    asked = [
        trigger(0, "shoes", history=("x",), category="wear", behaviors=2),
        trigger(1, "hat", category="wear"),
        trigger(2, "cap", anchors=("y",)),
        trigger(3, REJECT, kind="reject"),
    ]
    found = {name: mask.tolist() for name, mask in slices(asked, clicks).items()}
    assert found["head target"] == [True, False, False, False]
    assert found["tail target"] == [False, True, True, False]
    assert found["unseen target"] == [False, False, True, False]
    assert found["cold video"] == [False, True, True, True]
    assert found["warm video"] == [True, False, False, False]
    assert found["head video"] == [True, False, False, False]
    assert "tail video" not in found
    assert found["with history"] == [True, False, False, False]
    assert found["category: wear"] == [True, True, False, False]
    assert "with summary" not in found
    assert "head target" not in slices(asked)


@given(st.lists(st.integers(0, 9), min_size=1))
def test_the_head_is_half_of_the_warm_videos_or_more(behaviors: list[int]) -> None:
    found = slices([trigger(n, "q", behaviors=many) for n, many in enumerate(behaviors)])
    nothing = np.zeros(len(behaviors), dtype=bool)
    head, tail = found.get("head video", nothing), found.get("tail video", nothing)
    assert np.array_equal(head ^ tail, found.get("warm video", nothing))
    assert head.sum() >= tail.sum()
    if tail.any():
        least = min(many for many, yes in zip(behaviors, head, strict=True) if yes)
        assert all(many < least for many, yes in zip(behaviors, tail, strict=True) if yes)
