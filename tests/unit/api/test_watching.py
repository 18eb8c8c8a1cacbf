"""What is told to those who watch a bar: the evidence that changed, and the list taken apart."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from api.watching.changes import changes
from api.watching.explain import explain, segments
from api.watching.watch import Told, Watchers
from onebar.gating.gate import Gate
from onebar.gating.rules import RuleBook
from onebar.recommending.candidates import choose
from onebar.recommending.pool import shipped_taste
from onebar.recommending.recommend import Recommender
from onebar.records import (
    Anchor,
    CacheEntry,
    Candidate,
    Features,
    HistoryEntry,
    Pair,
    QueryCounts,
    Rule,
    VideoText,
)

QUERIES = st.sampled_from(["red shoes", "blue hat", "green tea", "toy train"])
TEXTS = st.builds(VideoText, title=QUERIES, summary=QUERIES, sensitive=st.booleans())
FEATURES = st.builds(
    Features,
    text=st.none() | TEXTS,
    anchors=st.dictionaries(QUERIES, st.floats(0.5, 100)).map(
        lambda found: tuple(Anchor(query, weight) for query, weight in found.items())
    ),
    history=st.dictionaries(QUERIES, st.floats(1, 100)).map(
        lambda found: tuple(HistoryEntry(query, ts) for query, ts in found.items())
    ),
)


@given(FEATURES, FEATURES)
def test_changes_name_every_difference_and_nothing_else(before: Features, after: Features) -> None:
    assert changes(before, before) == ()
    found = changes(before, after)
    named = {(change.field, change.query, change.what) for change in found}
    weights = [{a.query: a.weight for a in each.anchors} for each in (before, after)]
    for query in {*weights[0], *weights[1]}:
        was, now = (each.get(query) for each in weights)
        assert (("A", query, "new") in named) == (was is None)
        assert (("A", query, "gone") in named) == (now is None)
        if was is not None and now is not None:
            assert (("A", query, "stronger") in named) == (now > was * 1.01)
    asked = [{h.query for h in each.history} for each in (before, after)]
    assert {query for field, query, what in named if (field, what) == ("H", "new")} == (
        asked[1] - asked[0]
    )
    texts = [each.text or VideoText() for each in (before, after)]
    told = [replace(text, summary="") for text in texts]
    assert ("T" in {field for field, _, _ in named}) == (told[0] != told[1])
    assert ("M" in {field for field, _, _ in named}) == (texts[0].summary != texts[1].summary)


def test_an_anchor_that_decays_is_no_news() -> None:
    video = Features(VideoText(title="x"), (Anchor("red shoes", 4.0),))
    later = replace(video, anchors=(Anchor("red shoes", 3.9),))
    assert changes(video, later) == ()


BOOTS = VideoText(
    title="Hiking boots that survived Iceland", item_title="waterproof leather hiking boots"
)
KNOWN = Features(
    BOOTS,
    (Anchor("waterproof hiking boots", 9.0), Anchor("boots for call 555 0199 2837", 3.0)),
    (HistoryEntry("hiking boots for women", 5.0), HistoryEntry("toy train", 4.0)),
)
BEAM = (
    Candidate("leather hiking boots", -0.5),
    Candidate("mixed nuts", -2.0),
    Candidate("hiking hiking boots", -3.0),
)


class Runner:
    """A model that says the same of everything."""

    model = "fixed-00000000"

    def begin(self, prompt: str, **_: Any) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        future.set_result(list(BEAM))
        return future


class Store:
    """What is known of every pair, or why it can't be read."""

    def __init__(self, known: Features) -> None:
        self.known = known

    async def features(self, pairs: Sequence[Pair], *, counted: bool = False) -> list[Features]:
        return [self.known for _ in pairs]


class Cache:
    async def by_digest(self, digests: Sequence[str]) -> list[None]:
        return [None for _ in digests]

    async def put(self, entries: Sequence[CacheEntry]) -> list[bool]:
        return [True for _ in entries]


def recommender(store: Store, gate: Gate) -> Recommender:
    return Recommender(store, Cache(), Runner(), gate=gate)


def gate(*rules: Rule) -> Gate:
    return Gate(RuleBook(rules))


async def explained(known: Features, which: Gate, k: int = 8) -> Any:
    made = recommender(Store(known), which)
    grounding = made.ground(("v", "u"), known)
    counts = {"waterproof hiking boots": QueryCounts(10, 3, 1)}
    beam = await made.beam(grounding)
    return grounding, explain(
        grounding, beam, made.chosen(grounding, beam), made.taste, which, k, 100.0, counts
    )


async def test_an_explanation_shows_the_list_that_is_chosen_and_why_the_rest_is_not() -> None:
    which = gate(Rule("r1", "block", query="leather hiking boots"))
    grounding, found = await explained(KNOWN, which)
    shown = [each.text for each in found.candidates if each.position is not None]
    chosen = choose(grounding.material, BEAM, 8, shipped_taste())
    assert shown == [q.text for q in which.apply(chosen.queries, about(), 100.0).queries]
    rest = {each.text: each for each in found.candidates if each.position is None}
    assert (rest["leather hiking boots"].held, rest["leather hiking boots"].detail) == (
        "rule",
        "r1",
    )
    assert rest["mixed nuts"].held == "ungrounded"
    assert rest["hiking hiking boots"].held == "repeated"
    by_text = {each.text: each for each in found.candidates}
    assert "anchor" in by_text["waterproof hiking boots"].origins
    assert "history" in by_text["hiking boots for women"].origins
    scores = {q.text: q.score for q in chosen.queries}
    assert all(by_text[text].score == pytest.approx(scores[text], abs=1e-3) for text in shown)
    [first, *_] = found.anchors
    assert (first.query, first.exposures, first.clicks, first.in_prompt) == (
        *("waterproof hiking boots", 10, 3),
        True,
    )
    assert [(entry.query, entry.used) for entry in found.history] == [
        ("hiking boots for women", True),
        ("toy train", False),
    ]
    assert "".join(segment.field for segment in found.segments) == "TMAH"


def about() -> Any:
    from onebar.gating.gate import about_of

    return about_of("v", KNOWN)


async def test_an_explanation_says_why_nothing_is_shown() -> None:
    marked = replace(KNOWN, text=replace(BOOTS, sensitive=True))
    _, found = await explained(marked, gate())
    assert found.reason == "sensitive"
    assert not [each for each in found.candidates if each.position is not None]
    _, barred = await explained(KNOWN, gate(Rule("no", "block", video_id="v")))
    assert barred.reason == "held_back"


async def test_a_pinned_query_is_told_of() -> None:
    _, found = await explained(KNOWN, gate(Rule("p", "pin", query="boot sale", video_id="v")))
    assert (found.candidates[0].text, found.candidates[0].origins) == ("boot sale", ("pinned",))


def test_a_prompt_is_told_by_its_fields() -> None:
    found = segments("a | b [SEP] s [SEP] [SEP] h")
    assert [(each.field, each.text) for each in found] == [
        *(("T", "a | b"), ("M", "s"), ("A", ""), ("H", "h")),
    ]
    assert [each.field for each in segments("You write the search bar")] == ["T"]


class Live:
    status = "ok"
    wanted = True

    def __init__(self, made: Recommender | None) -> None:
        self.recommender = made


async def first(telling: Any) -> Told:
    async with asyncio.timeout(10):
        return await anext(telling)


async def test_a_watcher_is_told_what_changed_and_why() -> None:
    store, which = Store(Features()), gate()
    live = Live(recommender(store, which))
    watchers = Watchers(store, live, which, every_s=0.001)  # type: ignore[arg-type]
    telling = watchers.watch(("v", "u"))
    assert (await first(telling)).state == "unknown"
    store.known = KNOWN
    told = await first(telling)
    assert (told.state, told.before, told.because) == ("told", None, ())
    texts = tuple(query.text for query in told.queries)
    assert texts
    assert watchers.count == 1

    more = HistoryEntry("leather boots care", 9.0)
    store.known = replace(KNOWN, history=(more, *KNOWN.history))
    told = await first(telling)
    assert told.before == texts
    assert [(change.field, change.query) for change in told.because] == [("H", more.query)]

    which.rules.put(Rule("r", "block", query=told.queries[0].text))
    which.rules.version += 1
    after = await first(telling)
    assert after.rules
    assert told.queries[0].text not in {query.text for query in after.queries}

    live.recommender, live.status = None, "loading"
    assert (await first(telling)).state == "away"
    watchers.close()
    with pytest.raises(StopAsyncIteration):
        await first(telling)
    assert watchers.count == 0


async def test_only_so_many_watch() -> None:
    store, which = Store(KNOWN), gate()
    live = Live(recommender(store, which))
    watchers = Watchers(store, live, which, most=1, every_s=0.001)  # type: ignore[arg-type]
    assert not watchers.full
    telling = watchers.watch(("v", None))
    await first(telling)
    assert watchers.full
    await telling.aclose()
    assert not watchers.full
