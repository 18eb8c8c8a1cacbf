"""Which version of the state is live, and who follows it."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from feature_store.versions import (
    Journal,
    Process,
    Rebuild,
    Version,
    VersionFollower,
    VersionNameError,
    check_name,
    next_name,
)
from onebar.errors import OneBarError
from onebar.process.tasks import end_tasks
from onebar.settings import Settings


@pytest.mark.parametrize(
    ("live", "taken", "following"),
    [
        ("g1", (), "g2"),
        ("g9", (), "g10"),
        ("g1", ("g2", "g3"), "g4"),
        ("7", (), "8"),
        ("main", (), "main-2"),
        ("main-2", ("main",), "main-3"),
    ],
)
def test_the_next_version_has_the_next_free_number(
    live: str, taken: tuple[str, ...], following: str
) -> None:
    assert next_name(live, frozenset(taken)) == following
    check_name(following)


@pytest.mark.parametrize("name", ["", "a:b", "a b", "{live}", "-g", "g\n", "x" * 65, "g*"])
def test_what_would_be_another_key_is_no_name(name: str) -> None:
    with pytest.raises(VersionNameError, match="name of a state version"):
        check_name(name)


class Fake:
    """Versions in this process."""

    def __init__(self) -> None:
        self.live = "g1"
        self.journal = Journal()
        self.away = False
        self.said: set[Process] = set()

    async def look(self) -> tuple[str, Journal]:
        if self.away:
            raise OneBarError("away")
        return self.live, self.journal

    async def say(self, process: Process, before: Process | None = None) -> None:
        if self.away:
            raise OneBarError("away")
        self.said -= {before} if before else set()
        self.said.add(process)

    async def leave(self, process: Process) -> None:
        self.said.discard(process)

    @property
    def places(self) -> list[tuple[str, str, bool]]:
        return [(each.kind, each.version, each.pinned) for each in self.said]


def follower(fake: Fake, settings: Settings) -> VersionFollower:
    return VersionFollower(cast(Any, fake), settings, "api", poll_s=0.0)


async def passes(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the followed one has nothing to await
            await asyncio.sleep(0)


async def test_a_process_is_told_of_another_version_once_and_says_where_it_is() -> None:
    fake, told = Fake(), list[str]()
    following = follower(fake, Settings())
    assert await following.learn() == "g1"
    await following.settle("g1")
    assert fake.places == [("api", "g1", False)]
    task = asyncio.create_task(following.follow(told.append))
    fake.live = "g2"
    await passes(lambda: told)
    for _ in range(50):
        await asyncio.sleep(0)
    assert told == ["g2"]  # not again while it is on its way
    await following.settle("g2")
    assert fake.places == [("api", "g2", False)]
    fake.away = True
    for _ in range(20):
        await asyncio.sleep(0)
    fake.away, fake.live = False, "g1"
    await passes(lambda: len(told) == 2)
    assert told == ["g2", "g1"]
    await end_tasks(task)
    await following.end()
    assert fake.places == []


async def test_a_move_that_is_awaited_is_waited_for() -> None:
    fake = Fake()
    following = follower(fake, Settings())
    await following.settle("g1")
    task = asyncio.create_task(following.follow(following.settle))
    fake.live = "g2"
    await passes(lambda: following.version == "g2")
    await end_tasks(task)


async def test_one_that_is_pinned_stays_and_says_so() -> None:
    fake, told = Fake(), list[str]()
    fake.live = "g5"
    following = follower(fake, Settings(state_version="g1"))  # the default, but set
    assert await following.learn() == "g1"
    await following.settle("g1")
    task = asyncio.create_task(following.follow(told.append))
    for _ in range(50):
        await asyncio.sleep(0)
    assert told == []
    assert fake.places == [("api", "g1", True)]
    await end_tasks(task)


async def test_a_deletion_has_to_reach_every_version_that_there_is() -> None:
    fake = Fake()
    fake.journal = Journal(
        versions={"g1": Version(filled=True), "g0": Version(filled=True)},
        rebuild=Rebuild("g2", "fill"),
    )
    following = follower(fake, Settings())
    await following.learn()
    assert following.others == ("g0", "g2")
