"""Who answers: a running API, or something to compare it with that needs no server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from msgspec import Struct

from onebar.client.clients import AsyncClient
from onebar.client.errors import ClientError, ClientTimeoutError
from onebar.errors import UsageError
from stream.events import Event, ShownQuery
from stream.simulator.texts.wording import likely_wordings
from stream.simulator.world import Visit, World

T = TypeVar("T")

WAIT_S = 60.0
"""How long the first video may take until the API knows it."""
POLL_S = 0.1
TRIES = 3
"""Calls that may go unanswered in a row, before a run of hours is given up: a machine that is used
otherwise, or sleeps, may stand still for longer than a call may take."""
CASCADE = "cascade"
ORACLE = "oracle"


class LoopError(UsageError, RuntimeError):
    """A policy that can't be asked. The text says what to do."""


class Shown(Struct, frozen=True):
    """What a policy would show: queries, best first, and where they came from.

    `source` is `cache`, `generated` or `fallback:KIND`; for a policy without a server its name.
    `request_id` is sent back with what was shown.
    """

    queries: tuple[ShownQuery, ...]
    source: str
    rejected: bool = False
    request_id: str | None = None
    model: str | None = None


class Policy(Protocol):
    """Answers visits. `name` is how its column is called."""

    name: str

    async def tell(self, events: Sequence[Event]) -> None:
        """Events of the feed, in their order."""
        ...

    async def ask(self, world: World, visits: Sequence[Visit]) -> list[Shown]:
        """What to show at each visit, in their order."""
        ...

    async def ready(self, video_id: str) -> None:
        """Return when this video, which it was told of, is known. Raises `LoopError`."""
        ...

    async def close(self) -> None: ...


class ApiPolicy:
    """A running API, asked and told over HTTP as a feed would."""

    def __init__(
        self,
        url: str,
        *,
        name: str | None = None,
        prefix: str = "",
        api_key: str | None = None,
        k: int | None = None,
        budget_ms: float | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """`prefix` stands before every id that the API sees, so that a run is of its own."""
        self.name = name or urlsplit(url).netloc or url
        self.url = url
        self._prefix = prefix
        self._k, self._budget_ms = k, budget_ms
        self._client = AsyncClient(url, api_key=api_key, timeout_s=timeout_s)

    async def tell(self, events: Sequence[Event]) -> None:
        if not events:
            return
        try:
            await again(lambda: self._client.send(events))
        except ClientError as error:
            raise LoopError(f"{self.url} takes no events: {error}") from error

    async def ask(self, world: World, visits: Sequence[Visit]) -> list[Shown]:
        pairs = [
            (self._prefix + visit.shown.video_id, self._prefix + visit.user.user_id)
            for visit in visits
        ]
        try:
            answers = await again(
                lambda: self._client.queries_many(pairs, k=self._k, budget_ms=self._budget_ms)
            )
        except ClientError as error:
            raise LoopError(f"{self.url} does not answer: {error}") from error
        return [
            Shown(
                tuple(
                    ShownQuery(query.text, position, query.propensity)
                    for position, query in enumerate(answer.queries)
                ),
                answer.source if answer.fallback is None else f"fallback:{answer.fallback}",
                answer.rejected,
                answer.request_id,
                answer.model,
            )
            for answer in answers
        ]

    async def ready(self, video_id: str) -> None:
        ends = time.monotonic() + WAIT_S
        while time.monotonic() < ends:
            try:
                answer = await self._client.queries(self._prefix + video_id, budget_ms=1)
            except ClientError as error:
                raise LoopError(
                    f"{self.url} can't be asked: {error}; is it running (`onebar up`)?"
                ) from error
            if answer.reason != "unknown_video":
                return
            await asyncio.sleep(POLL_S)
        raise LoopError(
            f"{self.url} did not hear of a video within {WAIT_S:.0f} s of being sent it: is the "
            "stream worker of that API running (`onebar stream`)?"
        )

    async def close(self) -> None:
        await self._client.aclose()


async def again(call: Callable[[], Awaitable[T]]) -> T:
    """What a call gives that does the same however often it is made, made again where no answer
    came in time. Raises `ClientError`."""
    for _ in range(TRIES - 1):
        with suppress(ClientTimeoutError):
            return await call()
    return await call()


class _Offline:
    """A policy in this process: nothing has to be told or awaited."""

    async def tell(self, events: Sequence[Event]) -> None:
        pass

    async def ready(self, video_id: str) -> None:
        pass

    async def close(self) -> None:
        pass


class CascadePolicy(_Offline):
    """The policy that writes simulated logs, going on from what it sees: a lower bound."""

    name = CASCADE

    async def ask(self, world: World, visits: Sequence[Visit]) -> list[Shown]:
        found = []
        for visit in visits:
            wordings = world.cascade(visit)
            queries = tuple(ShownQuery(each.text, at) for at, each in enumerate(wordings))
            found.append(Shown(queries, CASCADE))
        return found


class OraclePolicy(_Offline):
    """One who knows everything: the user's likeliest wordings of what the video is about, and
    nothing under what must not carry a query. An upper bound."""

    name = ORACLE

    def __init__(self, k: int = 8) -> None:
        self._k = k

    async def ask(self, world: World, visits: Sequence[Visit]) -> list[Shown]:
        found = []
        for visit in visits:
            texts: Sequence[str] = ()
            if not visit.shown.sensitive:
                ranked = likely_wordings(
                    world.lexicon, world.config, visit.shown.intent, visit.user.traits
                )
                texts = [text for text, _ in ranked]
            queries = tuple(ShownQuery(text, at) for at, text in enumerate(texts[: self._k]))
            found.append(Shown(queries, ORACLE, rejected=visit.shown.sensitive))
        return found


def open_policy(
    text: str,
    *,
    prefix: str = "",
    api_key: str | None = None,
    k: int | None = None,
    budget_ms: float | None = None,
) -> Policy:
    """The policy that `[NAME=]URL`, `cascade` or `oracle` names. Raises `LoopError`."""
    if text == CASCADE:
        return CascadePolicy()
    if text == ORACLE:
        return OraclePolicy(k or 8)
    name, equals, url = text.partition("=")
    if not equals or "://" in name:
        name, url = "", text
    if not url.startswith(("http://", "https://")):
        raise LoopError(
            f"expected a policy as http://HOST:PORT, NAME=http://HOST:PORT, {CASCADE} or {ORACLE}, "
            f"got {text!r}"
        )
    return ApiPolicy(
        url, name=name or None, prefix=prefix, api_key=api_key, k=k, budget_ms=budget_ms
    )
