"""A model and its successor: nobody waits, nothing is lost, nothing broken serves."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from recommend_world import Cache, Store, until
from small_checkpoints import damage, make

from onebar.evidence.prompt import PromptConfig
from onebar.gating.risk import shipped_rules
from onebar.generator.engine import Engine, EngineError
from onebar.generator.registry import NothingPromotedError, Registry
from onebar.generator.within import Within
from onebar.recommending.live import LiveModel
from onebar.recommending.loading import LoadedModel, open_configured, warm_prompt
from onebar.recommending.pool import Taste
from onebar.recommending.ranker import Ranker
from onebar.records import Candidate, QueryResult
from onebar.settings import Settings

WARM = warm_prompt(PromptConfig())


def said_by(model: str) -> str:
    """A query that tells who made it, in letters: a number that no evidence has is not shown."""
    return "shoes " + "".join(chr(ord("a") + ord(char) % 26) for char in model)


class FakeEngine(Engine):
    """Answers with its own name. It can be held, loses its voice, and remembers that it ended."""

    model = ""

    def __init__(self, model: str) -> None:
        self.model = model
        self.go = threading.Event()
        self.go.set()
        self.prompts: list[str] = []
        self.closed = False
        self.mute = False
        self.broken = False

    def generate(
        self, prompts: Sequence[str], k: int, within: Sequence[Within | None] = ()
    ) -> list[list[Candidate]]:
        assert not self.closed, "asked after its end"
        if prompts[0] != WARM:
            assert self.go.wait(30)
        self.prompts += prompts
        if self.broken:
            raise ValueError("boom")
        return [[] if self.mute else [Candidate(said_by(self.model), -1.0)] for _ in prompts]

    def close(self) -> None:
        self.closed = True


class World:
    """A registry of two checkpoints, and engines in place of what they hold."""

    def __init__(self, directory: Path) -> None:
        self.registry = Registry(directory / "models")
        self.a, self.b = (self.registry.add(make(directory / text, text))[0] for text in "ab")
        self.registry.promote(self.a)
        self.engines: list[FakeEngine] = []
        self.may_load = threading.Event()
        self.may_load.set()
        self.prepare: Callable[[FakeEngine], None] = lambda engine: None
        self.loads = 0
        self.store, self.cache = Store(), Cache()
        self.settings = Settings(registry=self.registry.path, registry_poll_s=0.01)
        self.warnings: list[str | None] = []
        self.live = LiveModel(
            self.settings,
            self.store,
            self.cache,
            load=self.load,
            retry_s=1000.0,
            on_warning=self.warnings.append,
        )

    def load(self, settings: Settings) -> LoadedModel:
        self.loads += 1
        name = open_configured(settings).name
        assert self.may_load.wait(30)
        engine = FakeEngine(name)
        self.prepare(engine)
        self.engines.append(engine)
        # All that may be said is as good: what is said tells who was asked.
        return LoadedModel(engine, PromptConfig(), taste=Taste(Ranker({}), shipped_rules()))

    async def ask(self, video: str = "shoes", user: str | None = None) -> QueryResult:
        recommender = self.live.recommender
        assert recommender is not None
        [answer] = await recommender.recommend([(video, user)])
        assert isinstance(answer, QueryResult), answer
        return answer


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.live.open()
    yield world
    world.may_load.set()
    for engine in world.engines:
        engine.go.set()
    await world.live.close()
    assert all(engine.closed for engine in world.engines)


def info(model: str) -> float | None:
    return REGISTRY.get_sample_value("onebar_model_info", {"model": model})


def swaps(outcome: str) -> float:
    return REGISTRY.get_sample_value("onebar_model_swaps_total", {"outcome": outcome}) or 0.0


async def test_it_goes_on_to_what_is_promoted(world: World) -> None:
    before = await world.ask()
    assert (before.model, world.live.name) == (world.a, world.a)
    assert world.engines[0].prompts[0] == WARM
    count = swaps("swapped")
    await world.live.look()
    assert len(world.engines) == 1
    world.registry.promote(world.b)
    await world.live.look()
    after = await world.ask()
    assert (after.model, world.live.name) == (world.b, world.b)
    assert said_by(world.b) in [query.text for query in after.queries]
    assert after.evidence_digest != before.evidence_digest
    assert world.engines[1].prompts[0] == WARM
    assert world.engines[0].closed
    assert (info(world.a), info(world.b)) == (0, 1)
    assert swaps("swapped") == count + 1
    assert world.registry.rollback() == world.a
    await world.live.look()
    assert (await world.ask()).evidence_digest == before.evidence_digest
    assert (info(world.a), info(world.b)) == (1, 0)
    assert world.warnings == []


async def test_it_follows_by_itself(world: World) -> None:
    following = asyncio.create_task(world.live.follow())
    for name in (world.b, world.a, world.b):
        world.registry.promote(name)
        await until(lambda name=name: world.live.name == name)  # type: ignore[misc]
        assert (await world.ask()).model == name
    following.cancel()
    await asyncio.wait((following,))


async def test_without_a_registry_there_is_nothing_to_follow(world: World) -> None:
    alone = LiveModel(
        Settings(),
        world.store,
        world.cache,
        load=lambda _: LoadedModel(FakeEngine("x"), PromptConfig()),
    )
    await alone.open()
    await alone.follow()
    assert alone.name == "x"
    await alone.close()
    assert alone.recommender is None


async def test_nobody_waits_while_it_loads(world: World) -> None:
    world.may_load.clear()
    world.registry.promote(world.b)
    looking = asyncio.create_task(world.live.look())
    await until(lambda: world.loads == 2)
    assert (await world.ask()).model == world.a
    assert not looking.done()
    world.may_load.set()
    await looking
    assert (await world.ask("anchored")).model == world.b


async def test_what_was_begun_is_finished_by_the_model_that_began(world: World) -> None:
    old = world.engines[0]
    old.go.clear()
    begun = asyncio.create_task(world.ask())
    await until(lambda: world.store.calls == 1)
    world.registry.promote(world.b)
    looking = asyncio.create_task(world.live.look())
    await until(lambda: world.live.name == world.b)
    assert (await world.ask("anchored")).model == world.b
    assert not old.closed
    assert not looking.done()
    old.go.set()
    assert (await begun).model == world.a
    await looking
    assert old.closed


async def test_a_model_in_use_is_kept(world: World) -> None:
    with world.live.use() as recommender:
        groundings = await recommender.evidence([("shoes", None)])
        world.registry.promote(world.b)
        looking = asyncio.create_task(world.live.look())
        await until(lambda: world.live.name == world.b)
        with world.live.use() as newer:
            assert newer.model == world.b
        [answer] = await recommender.answer(groundings)
        assert isinstance(answer, QueryResult)
        assert answer.model == world.a
        assert not world.engines[0].closed
    await looking
    assert world.engines[0].closed


async def test_what_is_dropped_is_freed(world: World) -> None:
    await world.ask()
    gone = weakref.ref(world.engines.pop())
    world.registry.promote(world.b)
    await world.live.look()
    import gc

    gc.collect()
    assert gone() is None


def broken(engine: FakeEngine) -> None:
    engine.broken = True


def mute(engine: FakeEngine) -> None:
    engine.mute = True


def unloadable(engine: FakeEngine) -> None:
    raise RuntimeError("out of memory")


@pytest.mark.parametrize("fault", [broken, mute, unloadable])
async def test_what_does_not_answer_is_refused(
    world: World, fault: Callable[[FakeEngine], None]
) -> None:
    world.prepare = fault
    world.registry.promote(world.b)
    count = swaps("refused")
    for _ in range(5):
        await world.live.look()
    assert world.loads == 2, "tried once, not at every look"
    assert swaps("refused") == count + 1
    assert (await world.ask()).model == world.live.name == world.a
    [warning] = world.warnings
    assert world.live.warning == warning
    assert warning is not None
    assert warning.startswith(f"{world.b} is refused, {world.a} keeps serving: ")
    assert all(engine.closed for engine in world.engines[1:])
    assert info(world.a) == 1

    world.prepare = lambda engine: None
    world.registry.promote(world.b)  # once more: now it is well
    await world.live.look()
    assert (await world.ask()).model == world.b
    assert world.warnings == [warning, None]


async def test_going_back_ends_the_warning(world: World) -> None:
    world.prepare = broken
    world.registry.promote(world.b)
    await world.live.look()
    assert world.live.warning
    world.registry.rollback()
    await world.live.look()
    assert world.live.warning is None
    assert world.loads == 2


async def test_a_refused_one_is_tried_again_later(world: World) -> None:
    world.live._retry_s = 0.0
    world.prepare = broken
    world.registry.promote(world.b)
    for _ in range(3):
        await world.live.look()
    assert world.loads == 4
    assert len(world.warnings) == 1


def no_pointer(world: World) -> None:
    (world.registry.path / "current").unlink()


def nonsense(world: World) -> None:
    (world.registry.path / "current").write_text("../../etc/passwd")


def nowhere(world: World) -> None:
    (world.registry.path / "current").write_text("tiny-00000000")


def damaged(world: World) -> None:
    damage(world.registry.checkpoint_path(world.b) / "ct2" / "model.bin")
    (world.registry.path / "current").write_text(world.b)


def no_registry(world: World) -> None:
    world.registry.path.rename(world.registry.path.parent / "elsewhere")


def another_inside(world: World) -> None:
    path = world.registry.checkpoint_path(world.b)
    path.rename(path.parent.parent / "aside")
    make(path, "c")
    (world.registry.path / "current").write_text(world.b)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (no_pointer, "nothing is promoted"),
        (nonsense, "no checkpoint's name"),
        (nowhere, "there is no checkpoint"),
        (damaged, "sha256"),
        (no_registry, "there is no registry"),
        (another_inside, "holds the checkpoint"),
    ],
)
async def test_a_registry_in_a_bad_state_changes_nothing(
    world: World, harm: Callable[[World], None], said: str
) -> None:
    harm(world)
    for _ in range(3):
        await world.live.look()
    assert (await world.ask()).model == world.a
    [warning] = world.warnings
    assert said in (warning or "")
    assert len(world.engines) == 1


async def test_a_broken_start_is_an_error(tmp_path: Path) -> None:
    world = World(tmp_path)
    (world.registry.path / "current").unlink()
    with pytest.raises(NothingPromotedError):
        await world.live.open()
    world.registry.promote(world.b)
    world.prepare = broken
    with pytest.raises(EngineError):
        await world.live.open()
    assert world.live.recommender is None
    assert all(engine.closed for engine in world.engines)
    with pytest.raises(RuntimeError, match="no model"), world.live.use():
        pass
    await world.live.close()


async def test_a_pointer_that_moves_on_while_one_loads(world: World) -> None:
    world.may_load.clear()
    world.registry.promote(world.b)
    looking = asyncio.create_task(world.live.look())
    await until(lambda: world.loads == 2)
    world.registry.rollback()
    world.may_load.set()
    await looking
    assert world.live.name == world.a
    assert world.engines[1].closed
    assert not world.engines[0].closed
    await world.live.look()
    assert world.loads == 2


async def test_the_end_while_one_loads(world: World) -> None:
    world.may_load.clear()
    world.registry.promote(world.b)
    following = asyncio.create_task(world.live.follow())
    await until(lambda: world.loads == 2)
    following.cancel()
    await asyncio.wait((following,))
    await world.live.close()
    assert world.engines[0].closed
    world.may_load.set()
    await until(lambda: len(world.engines) == 2)
    world.engines.pop()  # never handed over


async def test_queries_of_a_model_left_behind_are_due_for_renewal(world: World) -> None:
    a, b = world.a, world.b
    assert a not in world.live.retired
    assert b not in world.live.retired, "not current yet: another server may be ahead"
    world.registry.promote(world.b)
    await world.live.look()
    assert a in world.live.retired
    assert b not in world.live.retired
    world.registry.rollback()
    await world.live.look()
    assert a not in world.live.retired
    assert b in world.live.retired
    assert "demo-of-another-server" not in world.live.retired
    late = LiveModel(world.settings, world.store, world.cache, load=world.load)
    await late.open()
    assert b in late.retired, "the registry remembers"
    assert a not in late.retired
    await late.close()
