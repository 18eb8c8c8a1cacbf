"""A ranker that has learned from clicks: what it sees, what it makes of a list, and that each user
gets their own order of one generation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recommend_world import World

from onebar.gating.risk import shipped_rules
from onebar.ranking.book import Book
from onebar.ranking.habits import PLAIN, Habits, Style
from onebar.recommending.candidates import choose, proposals
from onebar.recommending.features import FEATURES, describe, user_of
from onebar.recommending.material import Material, material, seen
from onebar.recommending.pool import Taste
from onebar.recommending.ranker import Proposal, shipped_ranker
from onebar.records import Anchor, Candidate, Features, HistoryEntry, Reactions, VideoText

VIDEO = VideoText(title="trail running shoes for wide feet")
MADE = Material(VIDEO, (Anchor("trail shoes", 4.0),), ("shoes cheap",))
BEAM = tuple(
    Candidate(text, score)
    for text, score in (("trail shoes men", -0.5), ("shoes trail men", -1.0), ("wide shoes", -2.0))
)


class Longest:
    """A scorer that likes long queries, and one user's more than another's."""

    digest = "longest"
    variety = 0.0
    beam = 3

    def scores(self, proposals: Sequence[Proposal], material: Material) -> list[float]:
        sign = -1.0 if "short" in material.recent else 1.0
        return [sign * len(one.text) for one in proposals]


def taste(**parts: Any) -> Taste:
    return Taste(shipped_ranker(), shipped_rules(), **parts)


def row(made: Material, text: str, **parts: Any) -> dict[str, float]:
    found = proposals(made, BEAM, taste(**parts), exact=True)
    table = describe(found, made, shipped_ranker(), parts.get("book"))
    [at] = [at for at, one in enumerate(found) if one.text == text]
    return dict(zip(FEATURES, table[at].tolist(), strict=True))


def test_a_row_says_who_named_it_and_what_it_shares() -> None:
    made = seen(MADE, ("cheap tent", "cheap lamp", "shoes cheap"), [("trail shoes", 9, 3, 1)])
    anchor = row(made, "trail shoes")
    assert (anchor["anchor"], anchor["exposures"], anchor["taps"]) == (0, 4, 2)
    assert (anchor["base_exposures"], anchor["base_share"], anchor["sources"]) == (4, 1, 2)
    assert math.isnan(anchor["beam"])
    beam = row(made, "trail shoes men")
    assert (beam["beam"], beam["words"], beam["foreign"]) == (0, 3, 1)
    assert beam["in_title"] == pytest.approx(2 / 3)
    assert math.isnan(beam["tap_rate"])
    own = row(made, "shoes cheap")
    assert (own["history"], own["repeated"], own["nearest_query"]) == (0, 2, 1)
    assert own["habit_mean"] == pytest.approx((1 + 1 / 3) / 2)
    assert own["habit_last"] == pytest.approx(1 / 3)


def test_the_order_of_words_is_the_users() -> None:
    made = seen(msgspec.structs.replace(MADE, history=("shoes trail",)), ("shoes trail",), ())
    assert (
        row(made, "shoes trail men")["own_order"],
        row(made, "shoes trail men")["habit_order"],
    ) == (1, 1)
    assert row(made, "trail shoes men")["own_order"] == -1


BOOK = Book.of(
    {"cheap shoes": 3, "wide shoes": 2, "shoes near me": 1, "wok": 9},
    Habits(
        ("cheap ",),
        (" near me",),
        {PLAIN: 0.6, Style("cheap ", ""): 0.2, Style("", " near me"): 0.2},
    ),
)


def test_what_a_query_asks_for_and_how_it_is_put_are_told_apart() -> None:
    counts = [("shoes near me", 16, 4, 0), ("cheap shoes", 4, 0, 0)]
    made = seen(MADE, ("cheap tent", "cheap lamp"), counts)
    mine, other = row(made, "cheap shoes", book=BOOK), row(made, "shoes near me", book=BOOK)
    assert mine["base_exposures"] == other["base_exposures"] == 20
    assert (mine["exposures"], other["exposures"]) == (4, 16)
    assert mine["base_asked"] == other["base_asked"] == pytest.approx(math.log2(5))
    assert mine["asked"] == pytest.approx(math.log2(4))
    assert mine["style"] > other["style"]
    assert (mine["style_own"], other["style_own"]) == (1, 0)


def test_what_there_is_is_also_put_as_the_user_puts_things() -> None:
    made = seen(MADE, ("cheap tent", "cheap lamp"), [("wide shoes near me", 16, 4, 0)])
    found = {one.text: one for one in proposals(made, BEAM, taste(book=BOOK), exact=True)}
    assert found["cheap wide shoes"].sourced
    assert found["cheap trail shoes men"].styled
    assert found["wide shoes near me"].counted == 0
    # One who has no habits is offered none, whatever others do.
    plain = {one.text for one in proposals(seen(MADE, (), ()), BEAM, taste(book=BOOK), exact=True)}
    assert not any(text.startswith("cheap trail") for text in plain)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.text("ab ", max_size=9), max_size=4),
    st.lists(st.text("ab ", max_size=9), max_size=4),
    st.text("ab |", max_size=12),
)
def test_any_evidence_has_rows_of_numbers(
    recent: list[str], anchors: list[str], title: str
) -> None:
    made = seen(
        Material(VideoText(title=title), tuple(Anchor(q, 1.0) for q in anchors)), recent, ()
    )
    found = proposals(made, BEAM, taste(), exact=True)
    table = describe(found, made, shipped_ranker())
    assert table.shape == (len(found), len(FEATURES))
    assert not np.isinf(table).any()
    assert user_of(tuple(recent)).share.keys() >= set()


def test_counters_move_the_material_in_steps_only() -> None:
    def made(shown: int, tapped: int) -> bytes:
        features = Features(VIDEO, counts=(("trail shoes", shown, tapped, 0),))
        return material(features, (), clicks=True).encoded()

    assert made(70, 5) == made(200, 7)
    assert made(70, 5) != made(256, 5)
    assert made(70, 5) != made(70, 8)


def test_without_such_a_ranker_users_share_their_material() -> None:
    history = (HistoryEntry("wok", 2.0),)
    one = material(Features(VIDEO, history=history), ())
    assert one == material(Features(VIDEO), ())
    assert material(Features(VIDEO, history=history), (), clicks=True).recent == ("wok",)


def test_a_scorer_tells_orders_of_words_apart_and_weighs_the_anchors() -> None:
    assert len(choose(MADE, BEAM, 2, taste(), from_text=False).queries) == 2
    found = choose(MADE, BEAM, 2, taste(scorer=Longest()), from_text=False).queries
    assert [one.text for one in found] == ["shoes trail men", "trail shoes men"]
    # The strongest anchor is always among the queries of a ranker that knows no taps.
    plain = choose(MADE, BEAM, 2, taste(), from_text=False).queries
    assert "trail shoes" in {one.text for one in plain}


def test_known_queries_are_candidates_and_part_of_the_digest() -> None:
    book = Book.of({"wide trail shoes women black": 4, "wok": 9})
    with_book = taste(scorer=Longest(), book=book)
    found = choose(MADE, BEAM, 3, with_book, from_text=False).queries
    assert found[0].text == "wide trail shoes women black"
    assert "wok" not in {one.text for one in found}
    assert len({taste().digest, taste(scorer=Longest()).digest, with_book.digest}) == 3
    assert row(seen(MADE, (), ()), "wide trail shoes women black", book=book)["asked"] == (
        pytest.approx(math.log2(5))
    )


def test_scores_of_a_list_are_log_probabilities() -> None:
    found = choose(MADE, BEAM, 8, taste(scorer=Longest())).queries
    assert sum(math.exp(one.score) for one in found) <= 1 + 1e-6
    assert all(one.score <= 0 for one in found)


async def test_users_get_their_own_order_of_one_generation() -> None:
    world = World(taste=taste(scorer=Longest()))
    await world.batcher.start()
    try:
        world.store.history["terse"] = (HistoryEntry("short", 1.0),)
        answers = [(await world.ask(("shoes", user)))[0] for user in (None, "terse", "cook")]
        await world.recommender.drain()
    finally:
        await world.batcher.stop()
    assert world.store.counted
    texts = [[one.text for one in answer.queries] for answer in answers]
    assert texts[0] == texts[2] == sorted(texts[0], key=len, reverse=True)
    assert texts[1] == sorted(texts[1], key=len)
    assert len({answer.evidence_digest for answer in answers}) == 3
    assert len(world.engine.prompts) == 1


class Habitual:
    """A scorer that likes what is put as the user puts things."""

    digest = "habitual"
    variety = 0.0
    beam = 3

    def scores(self, proposals: Sequence[Proposal], material: Material) -> list[float]:
        table = describe(proposals, material, shipped_ranker(), BOOK)
        return [float(score) for score in table[:, FEATURES.index("style")]]


async def test_a_served_bar_follows_the_users_habit_and_what_they_are_tired_of() -> None:
    """From the store to the answer, one user by one user."""
    world = World(taste=taste(scorer=Habitual(), book=BOOK))
    world.store.history |= {
        "thrifty": tuple(HistoryEntry(f"cheap {thing}", 9.0) for thing in ("wok", "tent", "desk")),
        "local": tuple(HistoryEntry(f"{thing} near me", 9.0) for thing in ("wok", "tent", "desk")),
    }
    await world.batcher.start()
    try:
        thrifty, local = await world.ask(("shoes", "thrifty"), ("shoes", "local"))
        first = thrifty.queries[0].text
        world.store.reactions["thrifty"] = Reactions(tired=frozenset([first]))
        world.cache.entries.clear()
        (weary,) = await world.ask(("shoes", "thrifty"))
        await world.recommender.drain()
    finally:
        await world.batcher.stop()
    assert first.startswith("cheap ")
    assert local.queries[0].text.endswith(" near me")
    assert [query.text for query in weary.queries][-1] == first
    assert weary.queries[0].text.startswith("cheap ")


SOME = st.lists(st.text("ab ", max_size=9), max_size=4)


@settings(deadline=None, max_examples=60)
@given(SOME, SOME, st.lists(st.tuples(st.text("ab ", max_size=5), st.integers(0, 99))), st.data())
def test_a_table_has_of_each_candidate_what_is_known_of_it(
    recent: list[str], anchors: list[str], counted: list[tuple[str, int]], data: st.DataObject
) -> None:
    counts = [(query, shown, shown // 3, shown // 9) for query, shown in dict(counted).items()]
    weights = [data.draw(st.sampled_from((0.0, 1.0, 4.0))) for _ in anchors]
    made = Material(
        VideoText(title="a ab b"),
        tuple(Anchor(*each) for each in zip(anchors, weights, strict=True)),
        tuple(recent[:2]),
    )
    made = seen(made, recent, counts)
    found = proposals(made, BEAM, taste(book=BOOK), exact=True)
    table = describe(found, made, shipped_ranker(), BOOK)
    of_count = {one.query: one for one in made.counts}
    for one, values in zip(found, table.tolist(), strict=True):
        row = dict(zip(FEATURES, values, strict=True))
        named = {
            "beam": one.beam,
            "anchor": one.anchor,
            "history": one.history,
            "counted": one.counted,
            "log_probability": None if one.beam is None else one.log_probability,
            "behind": None if one.beam is None else one.behind,
            "anchor_weight": None if one.anchor is None else math.log2(1 + one.weight),
            "near": float(one.near),
            "span": float(one.span is not None),
            "styled": float(one.styled),
            "characters": len(one.text),
            "asked": math.log2(1 + BOOK.count(one.text)),
            "repeated": recent.index(one.text) if one.text in recent else None,
            "sources": sum(
                each is not None
                for each in (one.beam, one.anchor, one.history, one.counted, one.span, one.book)
            ),
        }
        seen_as = of_count.get(one.text)
        for name in ("exposures", "clicks", "engagements"):
            column = {"clicks": "taps"}.get(name, name)
            named[column] = 0 if seen_as is None else getattr(seen_as, name)
        for name, value in named.items():
            if value is None:
                assert math.isnan(row[name]), name
            else:
                assert row[name] == pytest.approx(value, abs=1e-5), name
