"""What is generated where it is held to a repertoire, and what rules lift."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from recommend_world import World

from onebar.evidence.text import normalize_query
from onebar.gating.gate import Gate
from onebar.gating.repertoire import Constrain
from onebar.gating.risk import shipped_rules
from onebar.gating.rules import check_rule
from onebar.recommending.candidates import choose
from onebar.recommending.material import Material
from onebar.recommending.pool import Bounds
from onebar.records import Anchor, Candidate, Features, QueryResult, Rule, VideoText


@asynccontextmanager
async def running(constrain: Constrain = "open", *known: str) -> AsyncIterator[World]:
    gate = Gate(risk=shipped_rules(), constrain=constrain)
    for query in known:
        gate.repertoire.add(query)
    world = World(gate)
    await world.batcher.start()
    yield world
    await world.recommender.drain()
    await world.batcher.stop()


def texts(result: QueryResult) -> list[str]:
    return [query.text for query in result.queries]


async def test_only_what_is_of_the_repertoire_or_tied_to_the_video_is_made() -> None:
    async with running() as world:
        (free,) = await world.ask(("shoes", "runner"))
    assert "red trail shoes" in texts(free)
    async with running("only") as world:
        (result,) = await world.ask(("shoes", "runner"))
        assert texts(result) == ["trail shoes men"]  # its anchor; no span, no history, no beam
        assert result.evidence_digest != free.evidence_digest
        assert [each and each.more for each in world.engine.within] == [("trail shoes men",)] * 2
    async with running("only", "red trail shoes", "hat") as world:
        (result,) = await world.ask(("shoes", "runner"))
        assert sorted(texts(result)) == ["red trail shoes", "trail shoes men"]
        assert world.engine.within[0] is not None
        assert world.engine.within[0].near == ("red trail shoes",)


async def test_what_is_preferred_comes_first() -> None:
    async with running("prefer", "trail shoes") as world:
        (result,) = await world.ask(("shoes", "runner"))
        found = texts(result)
        assert set(found[:2]) == {"trail shoes", "trail shoes men"}
        assert len(found) > 2


async def test_a_stricter_request_is_kept_for_nobody_else() -> None:
    async with running() as world:
        (free,) = await world.ask(("shoes", None))
        (strict,) = await world.ask(("shoes", None), constrain="only")
        assert texts(strict) == ["trail shoes men"]
        assert len(texts(free)) > 1
        assert [entry.kept for entry in world.cache.entries] == [True, False]
    async with running("only") as world:
        (result,) = await world.ask(("shoes", None), constrain="open")
        assert texts(result) == ["trail shoes men"]


async def test_an_allowed_query_that_sounds_harmful_is_shown_and_no_longer_once_it_is_not() -> None:
    async with running() as world:
        world.store.videos["guns"] = Features(
            VideoText(title="nerf blaster for kids"), (Anchor("ghost gun kit", 4.0),)
        )
        gate = world.recommender.gate
        assert "ghost gun kit" not in texts((await world.ask(("guns", None)))[0])
        allowed = check_rule(Rule("a", "allow", query="ghost gun kit"))
        gate.take("a", allowed)
        assert "ghost gun kit" in texts((await world.ask(("guns", None)))[0])
        gate.take("a", None)
        assert "ghost gun kit" not in texts((await world.ask(("guns", None)))[0])


WORDS = ("red", "trail", "shoes", "socks", "wool", "hat")
QUERY = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True).map(" ".join)


@given(
    title=st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join),
    anchors=st.lists(QUERY, max_size=3, unique=True),
    history=st.lists(QUERY, max_size=3),
    beam=st.lists(QUERY | st.just("[REJECT]"), max_size=6, unique=True),
    known=st.sets(QUERY, max_size=6),
    k=st.integers(1, 8),
)
def test_no_candidate_of_any_source_is_outside(
    title: str,
    anchors: list[str],
    history: list[str],
    beam: list[str],
    known: set[str],
    k: int,
) -> None:
    material = Material(
        VideoText(title=title), tuple(Anchor(query, 2.0) for query in anchors), tuple(history)
    )
    generated = [Candidate(query, -1.0 - at) for at, query in enumerate(beam)]

    def inside(query: str) -> bool:
        return normalize_query(query) in known

    held = choose(material, generated, k, bounds=Bounds(inside))
    assert all(inside(query.text) for query in held.queries)
    preferred = [
        inside(query.text)
        for query in choose(material, generated, k, bounds=Bounds(inside, prefer=True)).queries
    ]
    assert preferred == sorted(preferred, reverse=True)


@pytest.mark.parametrize("harmful", [False, True])
def test_harmful_ones_come_on_top_of_the_others_where_they_are_asked_for(harmful: bool) -> None:
    anchors = tuple(Anchor(q, 4.0) for q in ("ghost gun kit", "nerf darts", "nerf gun"))
    material = Material(VideoText(title="nerf blaster"), anchors)
    found = [query.text for query in choose(material, (), 2, harmful=harmful).queries]
    assert sorted(set(found) - {"ghost gun kit"}) == ["nerf darts", "nerf gun"]
    assert ("ghost gun kit" in found) == harmful
