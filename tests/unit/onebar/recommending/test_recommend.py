"""From pairs to results: sharing, caching, rejection, deadlines, failures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import structs
from recommend_world import World, until

from onebar.generator.batching import DeadlineExceededError, QueueFullError
from onebar.generator.engine import EngineError
from onebar.recommending.recommend import (
    ATTEMPTS,
    EvidenceChangedError,
    UnknownVideoError,
)
from onebar.records import (
    Features,
    QueryResult,
    Reactions,
    Seals,
    VideoText,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.batcher.start()
    yield world
    world.engine.gate.set()
    await world.recommender.drain()
    await world.batcher.stop()


async def test_a_result_names_what_it_came_from_and_is_written(world: World) -> None:
    (result,) = await world.ask(("shoes", None))
    grounding = (await world.recommender.evidence([("shoes", None)]))[0]
    assert result.video_id == "shoes"
    assert result.model == "toy-1"
    assert result.evidence_digest == grounding.digest
    assert result.generated_at == 100.0
    assert not result.rejected
    assert result.queries[0].text == "trail shoes men"
    assert world.cache.kept == [("shoes", None, False)]


async def test_users_with_nothing_to_add_share_one_generation(world: World) -> None:
    results = await world.ask(("shoes", None), ("shoes", "cook"), ("shoes", "nobody"))
    assert len({result.evidence_digest for result in results}) == 1
    assert len(world.engine.prompts) == 1
    assert sorted(world.cache.kept, key=str) == [
        ("shoes", "cook", True),
        ("shoes", "nobody", True),
        ("shoes", None, False),
    ]


async def test_relevant_history_gives_an_own_result_and_the_video_gets_one_too(
    world: World,
) -> None:
    (own,) = await world.ask(("shoes", "runner"))
    assert sorted(world.cache.kept, key=str) == [
        ("shoes", "runner", False),
        ("shoes", None, False),
    ]
    (grounding,) = await world.recommender.evidence([("shoes", "runner")])
    # What was asked for is generated before what others may ask for.
    assert world.engine.prompts == [grounding.prompt, grounding.video_prompt]
    (everyones,) = await world.ask(("shoes", None))
    assert own.evidence_digest != everyones.evidence_digest
    assert len(world.engine.prompts) == 2


async def test_one_generation_serves_every_video_that_reads_the_same(world: World) -> None:
    (first,) = await world.ask(("shoes", None))
    (second,) = await world.ask(("twin", None))
    assert second.video_id == "twin"
    assert second.queries == first.queries
    assert len(world.engine.prompts) == 1


async def test_a_thousand_askers_one_generation(world: World) -> None:
    world.engine.gate.clear()
    tasks = [asyncio.create_task(world.ask(("shoes", f"u{i}"))) for i in range(1000)]
    await until(lambda: world.batcher.running == 1)
    world.engine.gate.set()
    await asyncio.gather(*tasks)
    assert len(world.engine.prompts) == 1


async def test_a_sensitive_video_is_rejected_without_the_model(world: World) -> None:
    (risky,) = await world.ask(("risky", "runner"))
    assert risky.rejected
    assert risky.queries == ()
    assert world.engine.prompts == []
    assert ("risky", "runner", True) in world.cache.kept
    world.store.videos["same words"] = Features(VideoText(title="trail shoes"), ())
    (harmless,) = await world.ask(("same words", None))
    assert not harmless.rejected


async def test_the_model_may_reject(world: World) -> None:
    (result,) = await world.ask(("anchored", None))
    assert result.rejected
    assert result.queries == ()


async def test_each_pair_has_its_own_outcome(world: World) -> None:
    answers = await world.recommender.recommend(
        [("nowhere", None), ("shoes", None), ("risky", None), ("shoes", None)]
    )
    assert isinstance(answers[0], UnknownVideoError)
    assert "nowhere" in str(answers[0])
    assert isinstance(answers[1], QueryResult)
    assert isinstance(answers[2], QueryResult)
    assert answers[1] is answers[3]
    assert world.store.calls == 1
    assert await world.recommender.recommend([]) == []


async def test_evidence_that_was_read_already_is_not_read_again(world: World) -> None:
    pairs = [("shoes", "runner"), ("nowhere", None), ("risky", None), ("shoes", "runner")]
    groundings = await world.recommender.evidence(pairs)
    world.store.videos["shoes"] = Features(VideoText(title="sandals"))
    answers = await world.recommender.answer(groundings)
    assert world.store.calls == 1
    assert isinstance(answers[0], QueryResult)
    assert answers[0].evidence_digest == groundings[0].digest
    assert isinstance(answers[1], UnknownVideoError)
    assert isinstance(answers[2], QueryResult)
    assert answers[3] is answers[0]
    (again,) = await world.recommender.recommend(pairs[:1])
    assert isinstance(again, QueryResult)
    assert again.evidence_digest != groundings[0].digest


async def test_an_engine_failure_is_the_pairs_answer_and_is_not_cached(world: World) -> None:
    (answer,) = await world.recommender.recommend([("bad", None)])
    assert isinstance(answer, EngineError)
    assert world.cache.entries == []


async def test_a_full_queue_is_the_pairs_answer() -> None:
    world = World(queue_size=1, max_batch=1)
    world.engine.gate.clear()
    await world.batcher.start()
    # Two are in hand, one fills the queue.
    for prompt, running in (("x", 1), ("y", 2), ("z", 2)):
        world.batcher.begin(prompt)
        await until(lambda running=running: world.batcher.running == running)  # type: ignore[misc]
    (answer,) = await world.recommender.recommend([("shoes", None)])
    assert isinstance(answer, QueueFullError)
    world.engine.gate.set()
    await world.batcher.stop()


async def test_the_deadline_holds_and_what_had_begun_still_reaches_the_cache(
    world: World,
) -> None:
    world.engine.gate.clear()
    loop = asyncio.get_running_loop()
    answers = await world.recommender.recommend(
        [("shoes", None), ("risky", None)], deadline=loop.time() + 0.05
    )
    assert isinstance(answers[0], DeadlineExceededError)
    assert isinstance(answers[1], QueryResult)
    world.engine.gate.set()
    await world.recommender.drain()
    assert ("shoes", None, False) in world.cache.kept
    (result,) = await world.ask(("shoes", None), deadline=loop.time() + 30)
    assert result.queries


async def test_a_cancelled_asker_does_not_stop_the_others(world: World) -> None:
    world.engine.gate.clear()
    one = asyncio.create_task(world.ask(("shoes", None)))
    two = asyncio.create_task(world.ask(("shoes", None)))
    await until(lambda: world.batcher.running == 1)
    one.cancel()
    await asyncio.wait([one])
    world.engine.gate.set()
    assert (await two)[0].queries


async def test_a_cache_that_is_away_is_raised(world: World) -> None:
    world.cache.broken = True
    with pytest.raises(ConnectionError):
        await world.recommender.recommend([("shoes", None)])
    loop = asyncio.get_running_loop()
    with pytest.raises(ConnectionError):
        await world.recommender.recommend([("shoes", None)], deadline=loop.time() + 30)


async def test_a_result_says_when_its_evidence_was_read(world: World) -> None:
    seals = Seals(read_at=77.5)
    world.store.videos["shoes"] = Features(VideoText(title="trail shoes"), seals=seals)
    (result,) = await world.ask(("shoes", None))
    assert result.generated_at == 77.5
    assert world.cache.entries[0].seals == seals


async def test_what_was_made_of_evidence_that_changed_is_made_anew(world: World) -> None:
    """A takedown while the model computes: nothing of the old text is answered."""

    def taken_down() -> None:
        world.cache.before_put = None
        world.cache.seal = b"removed!"
        seals = Seals(video=world.cache.seal)
        world.store.videos["shoes"] = Features(VideoText(removed=True), seals=seals)

    world.cache.before_put = taken_down
    (result,) = await world.ask(("shoes", None))
    assert result.rejected
    assert result.queries == ()
    assert world.store.calls == 2


async def test_evidence_that_never_stands_still_is_told(world: World) -> None:
    world.cache.seal = b"elsewhere"[:8]
    (answer,) = await world.recommender.recommend([("shoes", None)])
    assert isinstance(answer, EvidenceChangedError)
    assert world.store.calls == 1 + ATTEMPTS


async def test_who_is_tired_of_a_query_gets_it_last_and_others_do_not(world: World) -> None:
    (before,) = await world.ask(("shoes", "cook"))
    first = before.queries[0].text
    world.store.reactions["weary"] = Reactions(tired=frozenset([first]))
    world.cache.entries.clear()
    weary, cook = await world.ask(("shoes", "weary"), ("shoes", "cook"))
    assert [query.text for query in weary.queries][-1] == first
    assert cook.queries == before.queries
    # One generation serves both: only what is shown differs.
    assert weary.evidence_digest == cook.evidence_digest
    assert len(world.engine.prompts) == 1
    shared = {entry.user_id: entry.shared for entry in world.cache.entries}
    assert (shared["weary"], shared["cook"]) == (False, True)


async def test_what_all_are_tired_of_stands_behind_for_everybody(world: World) -> None:
    (before,) = await world.ask(("shoes", None))
    first = before.queries[0].text
    known = world.store.videos["shoes"]
    world.store.videos["shoes"] = structs.replace(known, tired=frozenset([first]))
    anybody, cook = await world.ask(("shoes", None), ("shoes", "cook"))
    assert anybody.queries == cook.queries
    assert [query.text for query in anybody.queries][-1] == first
