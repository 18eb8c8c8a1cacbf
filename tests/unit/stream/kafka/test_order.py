"""Batches in hand together: in their order, and none behind one that failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from stream.kafka.order import Order, PredecessorFailedError


class Batch(Struct, frozen=True):
    """Of which partitions, how often others get a turn before each of its steps, and the step at
    which it fails."""

    partitions: frozenset[int]
    waits: tuple[int, int, int]
    fails_at: int | None


BATCHES = st.lists(
    st.builds(
        Batch,
        partitions=st.frozensets(st.integers(0, 2), min_size=1, max_size=2),
        waits=st.tuples(*[st.integers(0, 4)] * 3),
        fails_at=st.sampled_from([None, None, None, 0, 1, 2]),
    ),
    max_size=8,
)


async def step(batch: Batch, number: int) -> None:
    for _ in range(batch.waits[number]):
        await asyncio.sleep(0)
    if batch.fails_at == number:
        raise ZeroDivisionError


async def in_hand(batches: Sequence[Batch]) -> tuple[list[int], list[int], list[BaseException]]:
    """Which had their effect, which were taken to their end, and how all of them ended."""
    order, effects, ends = Order(), list[int](), list[int]()

    async def take(number: int, batch: Batch) -> None:
        with order.join(batch.partitions) as place:
            await asyncio.sleep(0)  # until all have joined
            await step(batch, 0)
            await place.turn()
            await step(batch, 1)
            effects.append(number)
            place.let_pass()
            await step(batch, 2)
            await place.first()
            ends.append(number)

    tasks = [asyncio.create_task(take(*each)) for each in enumerate(batches)]
    async with asyncio.timeout(10):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert order._last == {}  # nobody is kept
    return effects, ends, [each for each in outcomes if each is not None]


@given(BATCHES)
def test_each_partition_is_in_order_and_ends_before_the_first_failure(batches: list[Batch]) -> None:
    effects, ends, failures = asyncio.run(in_hand(batches))
    for partition in range(3):
        own = [n for n, batch in enumerate(batches) if partition in batch.partitions]
        for came in (effects, ends):
            # A prefix: nothing is left out that something behind it did not leave out, too.
            assert [n for n in came if n in own] == own[: len(set(own) & set(came))]
    kinds = {type(failure) for failure in failures}
    assert kinds <= {ZeroDivisionError, PredecessorFailedError}
    assert len(ends) + len(failures) == len(batches)
    if all(batch.fails_at is None for batch in batches):
        assert not failures


async def waiting(place_of: list[str], order: Order, name: str) -> None:
    with order.join(["p"]) as place:
        await place.turn()
        place_of.append(name)
        await asyncio.Event().wait()


def test_one_that_is_cancelled_fails_those_behind_it_and_not_who_comes_later() -> None:
    async def run() -> None:
        order, came = Order(), list[str]()
        first = asyncio.create_task(waiting(came, order, "first"))
        behind = asyncio.create_task(waiting(came, order, "behind"))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(PredecessorFailedError):
            await behind
        assert came == ["first"]
        with order.join(["p"]) as place:
            await place.turn()
            await place.first()

    asyncio.run(run())


def test_other_partitions_do_not_wait() -> None:
    async def run() -> None:
        order = Order()
        with order.join(["p"]), order.join(["q"]) as other:
            async with asyncio.timeout(1):
                await other.turn()
                await other.first()

    asyncio.run(run())
