"""A recommender with all beside it made small: a store, a cache, an engine that can be held."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from msgspec import structs

from onebar.evidence.prompt import PromptConfig
from onebar.gating.gate import Gate
from onebar.gating.repertoire import Constrain
from onebar.generator.batching import Batcher
from onebar.generator.engine import Engine
from onebar.generator.within import Within
from onebar.recommending.pool import Taste
from onebar.recommending.recommend import Recommender
from onebar.records import (
    NO_REACTIONS,
    NO_SEAL,
    Anchor,
    CacheEntry,
    Candidate,
    Features,
    HistoryEntry,
    Pair,
    QueryResult,
    Reactions,
    VideoText,
)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.001)


class Store:
    """Features by pair; a user's history belongs to the user."""

    def __init__(self) -> None:
        self.videos: dict[str, Features] = {
            "shoes": Features(VideoText(title="trail shoes"), (Anchor("trail shoes men", 2.0),)),
            "twin": Features(VideoText(title="trail shoes"), (Anchor("trail shoes men", 3.0),)),
            "risky": Features(VideoText(title="trail shoes", sensitive=True), ()),
            "bad": Features(VideoText(title="explode"), ()),
            "anchored": Features(None, (Anchor("red lamp", 1.0),)),
        }
        self.history = {
            "runner": (HistoryEntry("red trail shoes", 5.0),),
            "cook": (HistoryEntry("wok", 5.0),),
        }
        self.reactions: dict[str, Reactions] = {}
        self.calls = 0
        self.counted = False

    async def features(self, pairs: Sequence[Pair], *, counted: bool = False) -> list[Features]:
        self.calls += 1
        self.counted |= counted
        return [
            structs.replace(
                known,
                history=self.history.get(user or "", ()),
                reactions=self.reactions.get(user or "", NO_REACTIONS),
            )
            for video, user in pairs
            for known in [self.videos.get(video, Features())]
        ]


class Body:
    def __init__(self, result: QueryResult) -> None:
        self._result = result

    def result(self) -> QueryResult:
        return self._result


class Cache:
    def __init__(self) -> None:
        self.digests: dict[str, Body] = {}
        self.entries: list[CacheEntry] = []
        self.broken = False
        self.seal = NO_SEAL
        self.before_put: Callable[[], None] | None = None

    async def by_digest(self, digests: Sequence[str]) -> list[Body | None]:
        return [self.digests.get(digest) for digest in digests]

    async def put(self, entries: Sequence[CacheEntry]) -> list[bool]:
        if self.broken:
            raise ConnectionError("the cache is away")
        if self.before_put is not None:
            self.before_put()
        for entry in entries:
            self.entries.append(entry)
            self.digests[entry.result.evidence_digest] = Body(entry.made or entry.result)
        return [entry.seals.video == self.seal for entry in entries]

    @property
    def kept(self) -> list[tuple[str, str | None, bool]]:
        return [(entry.result.video_id, entry.user_id, entry.shared) for entry in self.entries]


class HeldEngine(Engine):
    model = "toy-1"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.prompts: list[str] = []
        self.within: list[Within | None] = []

    def generate(
        self, prompts: Sequence[str], k: int, within: Sequence[Within | None] = ()
    ) -> list[list[Candidate]]:
        """Says the last word of each prompt, and heeds no bounds."""
        assert self.gate.wait(30)
        self.prompts += prompts
        self.within += within
        if any("explode" in prompt for prompt in prompts):
            raise ValueError("boom")
        return [
            [Candidate("[REJECT]", -0.001)]
            if "lamp" in prompt
            else [Candidate(prompt.rsplit(" ", 1)[-1], -0.5), Candidate("shoes", -1.0)]
            for prompt in prompts
        ]

    def close(self) -> None:
        pass


class World:
    def __init__(
        self, gate: Gate | None = None, taste: Taste | None = None, **options: int
    ) -> None:
        self.store, self.cache, self.engine = Store(), Cache(), HeldEngine()
        self.batcher = Batcher(self.engine, k=8, max_wait_s=0.001, **options)
        self.recommender = Recommender(
            *(self.store, self.cache, self.batcher),
            prompt_config=PromptConfig(),
            gate=gate,
            taste=taste,
            clock=lambda: 100.0,
        )

    async def ask(
        self, *pairs: Pair, deadline: float | None = None, constrain: Constrain | None = None
    ) -> list[QueryResult]:
        answers = await self.recommender.recommend(pairs, deadline=deadline, constrain=constrain)
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answer for answer in answers if isinstance(answer, QueryResult)]
