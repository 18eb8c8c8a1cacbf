"""What another process has the turn to generate is waited for, and never for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from api.answering.once import Once
from feature_store.cache.codec import CachedBody, decode_body, encode_body
from onebar.records import Candidate, QueryResult

MADE = decode_body(
    encode_body(QueryResult("", (Candidate("tent", -1.0),), False, "m", "d", 1.0)), 9
)


class Redis:
    """Answers looks with what is set, and counts them."""

    def __init__(self, **found: CachedBody | bool) -> None:
        self.found = found
        self.looks: list[list[str]] = []
        self.again = asyncio.Event()
        """Set by the second look."""

    async def look(self, digests: Sequence[str]) -> list[CachedBody | bool]:
        self.looks.append(list(digests))
        if len(self.looks) > 1:
            self.again.set()
        return [self.found[digest] for digest in digests]


async def test_what_is_there_or_is_our_turn_is_asked_for_once() -> None:
    assert MADE is not None
    redis = Redis(there=MADE, ours=True)
    once = Once(redis.look, 60)
    assert await once.by_digest(["there", "ours"]) == [MADE, None]
    assert redis.looks == [["there", "ours"]]


async def test_what_another_makes_is_waited_for() -> None:
    assert MADE is not None
    redis = Redis(theirs=False, ours=True)
    once = Once(redis.look, 60)
    asking = asyncio.create_task(once.by_digest(["theirs", "ours"]))
    await redis.again.wait()
    assert (once.waiting, once.idle, asking.done()) == (1, False, False)
    redis.found["theirs"] = MADE
    assert await asking == [MADE, None]
    assert redis.looks[1:] == [["theirs"]] * (len(redis.looks) - 1)
    assert once.idle


async def test_a_turn_that_ends_is_ours_and_nobody_waits_longer_than_that() -> None:
    redis = Redis(theirs=False)
    once = Once(redis.look, 60)
    asking = asyncio.create_task(once.by_digest(["theirs"]))
    await redis.again.wait()
    redis.found["theirs"] = True
    assert await asking == [None]
    redis.found["theirs"] = False
    assert await Once(redis.look, 0.02).by_digest(["theirs"]) == [None]
