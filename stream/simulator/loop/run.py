"""The loop itself: ask, show, tap by the hidden truth, tell; turn by turn, to the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from hashlib import blake2b
from typing import Any

from msgspec import UNSET, Struct, structs

from stream.events import Event, Impression, Video
from stream.simulator.loop.policies import LoopError, Policy, Shown
from stream.simulator.loop.reading import Reader
from stream.simulator.loop.report import LoopReport, Seen, make_report
from stream.simulator.loop.turns import LoopWorld, Turn
from stream.simulator.truth import TruthRecord, UserTruth, VideoTruth
from stream.simulator.world import Visit

IDS = ("event_id", "video_id", "user_id", "session_id")
AT_ONCE = 500
"""Events told in one call."""


class LoopConfig(Struct, frozen=True, kw_only=True):
    """How a loop is run. `windows` are of equal simulated time; `turn` visits are asked at once;
    `prefix` stands before every id that is told, so that a run is of its own."""

    windows: int = 12
    turn: int = 32
    prefix: str = ""


Record = Event | TruthRecord


async def run_loop(
    world: LoopWorld,
    policies: Sequence[Policy],
    config: LoopConfig | None = None,
    *,
    progress: Callable[[int, str], None] | None = None,
    written: Callable[[Record], None] | None = None,
) -> LoopReport:
    """Run a world through before these policies, each for its share of the users; what came of it.

    A user is always with the same policy (`arm_of`). Videos are told to all; what a user did to
    theirs alone. `written` gets every event, and the truth, as told; `progress` the number of
    events so far and how it goes. Policies are closed in the end. Raises `LoopError`.
    """
    config = config or LoopConfig()
    if not policies:
        raise LoopError("expected a policy at least")
    if len({policy.name for policy in policies}) < len(policies):
        raise LoopError("two policies have one name: give them names (--policy NAME=URL)")
    async with AsyncExitStack() as stack:
        for policy in policies:
            stack.push_async_callback(policy.close)
        return await _Loop(world, policies, config, progress, written).run()


def arm_of(user_id: str, arms: int) -> int:
    """Which of `arms` policies a user is with: the same whenever they come."""
    digest = blake2b(f"arm\0{user_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % arms


class _Loop:
    def __init__(
        self,
        world: LoopWorld,
        policies: Sequence[Policy],
        config: LoopConfig,
        progress: Callable[[int, str], None] | None,
        written: Callable[[Record], None] | None,
    ) -> None:
        self._world, self._policies, self._config = world, policies, config
        self._progress, self._written = progress, written
        self._reader = Reader(world.lexicon)
        self._seen: list[Seen] = []
        self._visits: dict[str, int] = {}

    async def run(self) -> LoopReport:
        started = time.monotonic()
        for number, turn in enumerate(self._world.turns(self._config.turn)):
            await self._tell(turn)
            if number == 0:
                last = turn.events[-1]
                assert isinstance(last, Video)
                for policy in self._policies:
                    await policy.ready(last.video_id)
            await self._answer(turn.visits)
            if self._progress is not None:
                taps = sum(seen.tapped is not None for seen in self._seen)
                rate = taps / len(self._seen) if self._seen else 0.0
                self._progress(self._world.emitted, f"{len(self._seen):,} bars, CTR {rate:.3f}")
        return make_report(
            self._world.config,
            [policy.name for policy in self._policies],
            self._seen,
            windows=self._config.windows,
            events=self._world.emitted,
            seconds=time.monotonic() - started,
        )

    async def _tell(self, turn: Turn) -> None:
        prefix, arms = self._config.prefix, len(self._policies)
        told: list[list[Event]] = [[] for _ in self._policies]
        if self._written is not None:
            for truth in turn.truths:
                self._written(_truth_as_told(truth, prefix))
        for event in turn.events:
            user_id = getattr(event, "user_id", UNSET)
            named = as_told(event, prefix)
            if self._written is not None:
                self._written(named)
            for arm in range(arms) if user_id is UNSET else (arm_of(user_id, arms),):
                told[arm].append(named)
        for policy, events in zip(self._policies, told, strict=True):
            for at in range(0, len(events), AT_ONCE):
                await policy.tell(events[at : at + AT_ONCE])

    async def _answer(self, visits: Sequence[Visit]) -> None:
        """Ask all of them, then have them react in their order."""
        arms = len(self._policies)
        answers: dict[str, tuple[Shown, float]] = {}
        for arm, policy in enumerate(self._policies):
            mine = [visit for visit in visits if arm_of(visit.user.user_id, arms) == arm]
            if not mine:
                continue
            asked = time.monotonic()
            found = await policy.ask(self._world, mine)
            ms = (time.monotonic() - asked) * 1e3
            for visit, shown in zip(mine, found, strict=True):
                answers[visit.request_id] = shown, ms
        for visit in visits:
            shown, ms = answers[visit.request_id]
            self._react(visit, shown, ms)

    def _react(self, visit: Visit, shown: Shown, ms: float) -> None:
        world = self._world
        intent = visit.shown.intent
        wordings = [self._reader.read(item.query, intent, visit.user) for item in shown.queries]
        chances = world.chances(visit, wordings)
        if shown.queries:
            world.expose(visit, shown.queries, shown.request_id)
        tapped = world.react(visit, wordings, shown.request_id)
        video_id = visit.shown.video_id
        before = self._visits.get(video_id, 0)
        self._visits[video_id] = before + 1
        self._seen.append(
            Seen(
                at=visit.at,
                user_id=visit.user.user_id,
                arm=arm_of(visit.user.user_id, len(self._policies)),
                source=shown.source,
                rejected=shown.rejected,
                sensitive=visit.shown.sensitive,
                queries=tuple(item.query for item in shown.queries),
                chances=tuple(chances),
                tapped=tapped,
                before=before,
                new=world.is_new(intent.product.index),
                model=shown.model,
                ms=ms,
            )
        )


def as_told(event: Event, prefix: str) -> Event:
    """The event with `prefix` before its ids. An impression has no `request_id`: it is told before
    there is an answer, whose name is what exposures and clicks go by."""
    changes: dict[str, Any] = {
        name: prefix + value
        for name in IDS
        if name in event.__struct_fields__ and (value := getattr(event, name)) is not UNSET
    }
    if isinstance(event, Impression):
        changes["request_id"] = UNSET
    return structs.replace(event, **changes)


def _truth_as_told(truth: TruthRecord, prefix: str) -> TruthRecord:
    if isinstance(truth, VideoTruth):
        return structs.replace(truth, video_id=prefix + truth.video_id)
    if isinstance(truth, UserTruth):
        return structs.replace(truth, user_id=prefix + truth.user_id)
    return truth
