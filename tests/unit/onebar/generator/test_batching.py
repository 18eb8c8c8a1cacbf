"""The batcher's promises: company, single flight, deadlines, full queues, failing engines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from onebar.generator.batching import (
    Batcher,
    BatcherStoppedError,
    DeadlineExceededError,
    QueueFullError,
)
from onebar.generator.engine import Engine, EngineError
from onebar.generator.within import Within
from onebar.records import Candidate


class GatedEngine(Engine):
    """Upper-cases prompts, once its gate is open; remembers the batches it saw."""

    model = "gated"

    def __init__(self, *, opened: bool = True) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.batches: list[list[str]] = []
        if opened:
            self.gate.set()

    def generate(
        self, prompts: Sequence[str], k: int, within: Sequence[Within | None] = ()
    ) -> list[list[Candidate]]:
        self.batches.append(list(prompts))
        self.entered.set()
        assert self.gate.wait(30)
        if "bad" in prompts:
            raise ValueError("cannot read 'bad'")
        return [[Candidate(prompt.upper(), -1.0)] * k for prompt in prompts]

    def close(self) -> None:
        pass

    @property
    def seen(self) -> list[str]:
        return [prompt for batch in self.batches for prompt in batch]


@asynccontextmanager
async def running(engine: GatedEngine, **options: float) -> AsyncIterator[Batcher]:
    batcher = Batcher(engine, k=1, **{"max_wait_s": 0.0, **options})  # type: ignore[arg-type]
    await batcher.start()
    try:
        yield batcher
    finally:
        engine.gate.set()
        await batcher.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.001)


async def test_everyone_gets_their_own_answer() -> None:
    async with running(GatedEngine(), max_batch=4, max_wait_s=0.005) as batcher:
        prompts = [f"p{i}" for i in range(25)]
        answers = await asyncio.gather(*(batcher.submit(prompt) for prompt in prompts))
        assert [answer[0].text for answer in answers] == [prompt.upper() for prompt in prompts]
        assert max(map(len, batcher.engine.batches)) <= 4  # type: ignore[attr-defined]


async def test_prompts_wait_for_company() -> None:
    engine = GatedEngine()
    async with running(engine, max_batch=3, max_wait_s=30.0) as batcher:
        await asyncio.gather(*(batcher.submit(prompt) for prompt in "abc"))
    assert engine.batches == [["a", "b", "c"]]


class ChoosyEngine(GatedEngine):
    """Gains from prompts of one length, three at a time."""

    batch_limit = 3
    company = staticmethod(len)


async def test_the_oldest_goes_with_those_of_its_company_that_wait() -> None:
    engine = ChoosyEngine(opened=False)
    async with running(engine, max_wait_s=30.0) as batcher:
        first = [asyncio.create_task(batcher.submit(prompt)) for prompt in ("x", "yy")]
        await until(lambda: len(engine.batches) == 2)
        prompts = ["a", "bb", "c", "dd", "e", "f", "gg", "hhh"]
        tasks = [asyncio.create_task(batcher.submit(prompt)) for prompt in prompts]
        await until(lambda: batcher.waiting == 8)
        engine.gate.set()
        answers = await asyncio.gather(*first, *tasks)
    assert [answer[0].text for answer in answers[2:]] == [prompt.upper() for prompt in prompts]
    # In which order the threads begin is theirs.
    assert sorted(engine.batches[2:]) == [["a", "c", "e"], ["bb", "dd", "gg"], ["f"], ["hhh"]]


async def test_nobody_waits_for_company_that_is_not_there() -> None:
    engine = ChoosyEngine()
    async with running(engine, max_wait_s=30.0) as batcher:
        async with asyncio.timeout(10):
            await batcher.submit("a")
            await asyncio.gather(batcher.submit("b"), batcher.submit("cc"))
    assert sorted(engine.batches) == [["a"], ["b"], ["cc"]]


async def test_no_more_go_together_than_the_setting_allows() -> None:
    engine = ChoosyEngine()
    async with running(engine, max_batch=1) as batcher:
        await asyncio.gather(*(batcher.submit(prompt) for prompt in "abc"))
    assert sorted(engine.batches) == [["a"], ["b"], ["c"]]  # two are begun at once


async def test_a_choosy_engine_has_the_next_batch_in_hand() -> None:
    engine = ChoosyEngine(opened=False)
    async with running(engine, workers=2) as batcher:
        prompts = ["a", "bb", "ccc", "dddd"]
        tasks = [asyncio.create_task(batcher.submit(prompt)) for prompt in prompts]
        await until(lambda: len(engine.batches) == 3)
        assert (batcher.running, batcher.waiting) == (3, 1)
        engine.gate.set()
        answers = await asyncio.gather(*tasks)
    assert [answer[0].text for answer in answers] == ["A", "BB", "CCC", "DDDD"]


async def test_late_company_is_left_behind() -> None:
    engine = ChoosyEngine(opened=False)
    async with running(engine) as batcher:
        first = [asyncio.create_task(batcher.submit(prompt)) for prompt in ("x", "yy")]
        await until(lambda: len(engine.batches) == 2)
        soon = asyncio.get_running_loop().time() + 0.005
        late = [batcher.begin("a", deadline=soon), batcher.begin("c", deadline=soon)]
        in_time = [batcher.begin(prompt) for prompt in ("bb", "d", "e")]
        await asyncio.sleep(0.01)
        engine.gate.set()
        await asyncio.wait([*first, *late, *in_time])
    assert all(isinstance(future.exception(), DeadlineExceededError) for future in late)
    assert sorted(engine.batches[2:]) == [["bb"], ["d", "e"]]


async def test_equal_prompts_run_once_whether_waiting_or_running() -> None:
    engine = GatedEngine(opened=False)
    async with running(engine) as batcher:
        first = asyncio.create_task(batcher.submit("a"))
        await until(engine.entered.is_set)
        others = [asyncio.create_task(batcher.submit(prompt)) for prompt in "aabbb"]
        await until(lambda: batcher.waiting == 1)
        engine.gate.set()
        answers = await asyncio.gather(first, *others)
    assert [answer[0].text for answer in answers] == list("AAABBB")
    assert engine.seen == ["a", "b"]


async def test_a_full_queue_says_so_at_once() -> None:
    engine = GatedEngine(opened=False)
    async with running(engine, queue_size=2) as batcher:
        tasks = [asyncio.create_task(batcher.submit("a"))]
        await until(engine.entered.is_set)
        tasks += [asyncio.create_task(batcher.submit(prompt)) for prompt in "bc"]
        await until(lambda: batcher.waiting == 2)
        with pytest.raises(QueueFullError):
            await batcher.submit("d")
        joined = asyncio.create_task(batcher.submit("b"))  # joining takes no room
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(*tasks, joined)
        assert (await batcher.submit("d"))[0].text == "D"


async def test_a_waiter_leaves_at_its_deadline_and_the_rest_stay() -> None:
    engine = GatedEngine(opened=False)
    async with running(engine) as batcher:
        loop = asyncio.get_running_loop()
        patient = asyncio.create_task(batcher.submit("a"))
        await until(engine.entered.is_set)
        with pytest.raises(DeadlineExceededError):
            await batcher.submit("a", deadline=loop.time() + 0.01)
        engine.gate.set()
        assert (await patient)[0].text == "A"


async def test_what_is_late_is_not_computed() -> None:
    engine = GatedEngine(opened=False)
    async with running(engine) as batcher:
        loop = asyncio.get_running_loop()
        blocker = asyncio.create_task(batcher.submit("a"))
        await until(engine.entered.is_set)
        begun = batcher.begin("late", deadline=loop.time() + 0.005)
        extended = batcher.begin("joined", deadline=loop.time() + 0.005)
        assert batcher.begin("joined") is extended
        with pytest.raises(DeadlineExceededError):
            await batcher.submit("gone", deadline=loop.time() + 0.01)
        with pytest.raises(DeadlineExceededError):
            await batcher.submit("past", deadline=loop.time() - 1)
        engine.gate.set()
        await blocker
        await asyncio.wait([begun, extended])
        assert isinstance(begun.exception(), DeadlineExceededError)
        assert extended.result()[0].text == "JOINED"
    assert engine.seen == ["a", "joined"]


async def test_cancelling_one_waiter_leaves_the_others() -> None:
    engine = GatedEngine(opened=False)
    async with running(engine) as batcher:
        one, two = (asyncio.create_task(batcher.submit("a")) for _ in range(2))
        await until(engine.entered.is_set)
        alone = asyncio.create_task(batcher.submit("b"))
        await until(lambda: batcher.waiting == 1)
        one.cancel()
        alone.cancel()
        await asyncio.wait([one, alone])
        assert batcher.waiting == 0
        engine.gate.set()
        assert (await two)[0].text == "A"
    assert engine.seen == ["a"]


async def test_a_failing_engine_is_told_to_each_waiter_and_the_worker_lives() -> None:
    async with running(GatedEngine(), max_batch=2, max_wait_s=30.0) as batcher:
        answers = await asyncio.gather(
            batcher.submit("bad"), batcher.submit("good"), return_exceptions=True
        )
        assert [type(answer) for answer in answers] == [EngineError, EngineError]
        assert "cannot read 'bad'" in str(answers[0])
        again = await asyncio.gather(batcher.submit("good"), batcher.submit("better"))
        assert [answer[0].text for answer in again] == ["GOOD", "BETTER"]


async def test_stop_finishes_what_waits_and_takes_no_more() -> None:
    engine = GatedEngine(opened=False)
    batcher = Batcher(engine, k=1, max_batch=1, max_wait_s=30.0, workers=2)
    with pytest.raises(BatcherStoppedError):
        await batcher.submit("early")
    await batcher.start()
    tasks = [asyncio.create_task(batcher.submit(prompt)) for prompt in "abcde"]
    await until(engine.entered.is_set)
    stopping = asyncio.create_task(batcher.stop())
    await asyncio.sleep(0)
    with pytest.raises(BatcherStoppedError):
        await batcher.submit("late")
    engine.gate.set()
    await stopping
    assert [task.result()[0].text for task in tasks] == list("ABCDE")
    await batcher.stop()
