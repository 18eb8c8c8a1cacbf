"""A rebuild from its beginning to its end: one phase after another, each of which may be broken off
at any point and is gone on with by running the same again."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from msgspec import Struct, field, structs

from feature_store.opening import versions_beside
from feature_store.store import FeatureStore
from feature_store.versions import (
    LEASE_S,
    Journal,
    Process,
    Rebuild,
    Version,
    Versions,
    at_version,
    check_name,
    next_name,
)
from onebar.errors import OneBarError
from onebar.settings import Settings
from stream.events import BEHAVIORS, IMPRESSIONS
from stream.kafka.consumer import committed_offsets, end_offsets, set_committed
from stream.kafka.groups import generator_group
from stream.kafka.producer import EventProducer
from stream.kafka.topics import partition_counts
from stream.rebuild.compare import SAMPLE, Comparison, compare
from stream.rebuild.drop import drop
from stream.rebuild.fill import Filler, LogGoneError, Spans, spans_of
from stream.rebuild.warm import GAVE_ENOUGH, LOOKS, Warmed, Warming, carry
from stream.workers.continuity import LogRewoundError, StateLostError
from stream.workers.metrics import WorkerHealth
from stream.workers.retry import until_back
from stream.workers.runtime import fit

log = structlog.get_logger(__name__)

SETTLE_WITHIN_S = 60.0
"""How long processes may take to come to the new version before it is gone on without them."""
POLL_S = 0.2
FEW = 10_000
"""Records that a version may lack and yet count as one that somebody keeps at the log's end."""

Told = Callable[[str, float, str], None]
"""Takes the phase, how far it is (0 to 1), and a short text."""


class RebuildRefusedError(OneBarError, RuntimeError):
    """What was asked for can't be done as things are. The text says what is missing."""


class RebuildRunningError(OneBarError, RuntimeError):
    """Another rebuild is at work in this namespace."""


class StateDiffersError(OneBarError, RuntimeError):
    """The rebuilt version holds something else than the live one, and both had the same log."""


class Wanted(Struct, frozen=True):
    """What a rebuild is to do. `target` None: the next version, or the one under way. `kept` is one
    that was filled before and is gone back to: it is brought up to date, and never filled anew."""

    target: str | None = None
    kept: bool = False
    since: float | None = None
    drop: bool | None = None
    switch: bool = True
    warm: int = 100_000
    sample: int = SAMPLE
    accept_differences: bool = False
    per_s: float | None = None


class Report(Struct):
    """What became of it. `events` were taken in by this run, `refused` of them could not be
    processed; `fill_cpu_s` is the processor time of the fill. `missing` are the processes that had
    not come to the new version at the end."""

    live: str
    target: str
    events: int = 0
    refused: int = 0
    fill_s: float = 0.0
    fill_cpu_s: float = 0.0
    events_per_s: float = 0.0
    whole_log: bool = True
    checked: Comparison = field(default_factory=Comparison)
    warmed: Warmed = field(default_factory=Warmed)
    switched: bool = False
    settle_s: float = 0.0
    missing: list[str] = field(default_factory=list)
    dropped: int = 0
    previous: str | None = None


class Plan(Struct, frozen=True):
    """What a rebuild would do. `records` are to be read, by topic."""

    live: str
    target: str
    resumes: bool
    records: dict[str, int]
    whole_log: bool
    used_bytes: int
    limit_bytes: int
    pinned: tuple[str, ...]
    processes: tuple[Process, ...]


class Rebuilding:
    """One rebuild in one namespace. Open it with `rebuilding`."""

    def __init__(
        self,
        settings: Settings,
        store: FeatureStore,
        versions: Versions,
        told: Told = lambda phase, fraction, text: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._versions = versions
        self._told = told
        self._holder = f"{socket.gethostname()}:{os.getpid()}"
        self._health = WorkerHealth()

    async def plan(self, wanted: Wanted) -> Plan:
        """What `run` would do; changes nothing. Raises as `run` does before it begins."""
        live, journal = await self._versions.look()
        begun = self._begun(wanted, live, journal)
        target = at_version(self._settings, begun.target)
        spans = await spans_of(target, self._store.of(begun.target), begun.since)
        vitals = await self._store.vitals()
        processes = await self._versions.processes()
        return Plan(
            live,
            begun.target,
            journal.rebuild is not None,
            missing(spans),
            _whole(spans, begun.since),
            0 if vitals is None else vitals.used_bytes,
            0 if vitals is None else vitals.limit_bytes,
            tuple(str(each) for each in elsewhere(processes, begun.target) if each.pinned),
            tuple(processes),
        )

    async def run(self, wanted: Wanted) -> Report:
        """Fill, check, warm, switch, and wait until all have moved.

        Raises `RebuildRefusedError`, `RebuildRunningError`, `StateDiffersError`, what `Filler`
        does, and what loading a model does.
        """
        async with _sole(), self._lease():
            live, journal = await self._versions.look()
            begun = self._begun(wanted, live, journal)
            if begun.target == live:  # it had been switched to when it was broken off
                before = begun.before or live
            else:
                before = live
                self._refuse_pinned(await self._versions.processes(), begun.target)
            begun = structs.replace(begun, before=before)
            report = Report(before, begun.target, previous=before)
            await self._filled(wanted, begun, report)
        return report

    async def _filled(self, wanted: Wanted, begun: Rebuild, report: Report) -> None:
        """All that is done beside the fold of the log."""
        target = at_version(self._settings, begun.target)
        live = at_version(self._settings, report.live)
        state, before = self._store.of(begun.target), self._store.of(report.live)
        if wanted.kept:
            await self._refuse_unfilled(target, state)
        await self._note(begun, "fill")
        async with AsyncExitStack() as stack:
            producer = EventProducer(self._settings)
            stack.push_async_callback(producer.stop)
            await producer.start()
            await fit(self._store, self._health)
            switched = (await self._versions.look())[0] == begun.target
            filler = Filler(
                target,
                live,
                state,
                producer,
                self._health,
                per_s=wanted.per_s,
                spares=not switched,
            )
            stack.push_async_callback(filler.close)
            spans = await filler.open(begun.since)
            report.whole_log = _whole(spans, begun.since)
            async with asyncio.TaskGroup() as group:
                filling = group.create_task(filler.run())
                await self._fill(filler, spans, report)
                await self._mark_filled(begun)
                if not switched:
                    await self._prepare(wanted, begun, filler, before, state, report)
                    if not wanted.switch:
                        filling.cancel()
                        return
                    await self._switch(begun, filler, live, target)
                report.switched, filler.spares = True, False
                await self._settle(filler, begun.target, report)
                filling.cancel()
        await self._finish(begun, before, report)

    async def _fill(self, filler: Filler, spans: Spans, report: Report) -> None:
        self._health.started()
        cpu = time.process_time()
        began, total = time.monotonic(), sum(span.missing for span in spans.values())
        while True:
            left = await filler.left()
            took = time.monotonic() - began
            rate = filler.events / max(took, 1e-3)
            text = f"{filler.events:,} events, {rate:,.0f}/s"
            if left and rate >= 1:
                text += f", {duration(left / rate)} left"
            waits = "; ".join(f"{name}: {said}" for name, said in self._health.problems.items())
            done = 1 - left / max(total, left, 1)
            self._told("fill", done, f"waits for {waits}" if waits else text)
            if left == 0 and await filler.caught_up():
                break
            await asyncio.sleep(POLL_S)
        await filler.check_partitions()
        report.events, report.refused = filler.events, filler.refused
        report.fill_s = time.monotonic() - began
        report.fill_cpu_s = time.process_time() - cpu
        report.events_per_s = filler.events / max(report.fill_s, 1e-3)

    async def _prepare(
        self,
        wanted: Wanted,
        begun: Rebuild,
        filler: Filler,
        before: FeatureStore,
        state: FeatureStore,
        report: Report,
    ) -> None:
        """Check the version, and make it ready to answer."""
        await self._note(begun, "check")
        self._told("check", 0.0, "comparing")
        if wanted.sample and await self._is_measure(report.live, before):
            report.checked = await compare(
                before, state, whole=report.whole_log, sample=wanted.sample
            )
            if report.checked.differing and not wanted.accept_differences:
                raise StateDiffersError(_differs(begun.target, report.live, report.checked))
        await self._note(begun, "warm")
        self._told("warm", 0.0, "neighbours, repertoire")
        report.warmed = await carry(before, state)
        if wanted.warm:
            settings = at_version(self._settings, begun.target)
            warming = Warming(settings, before, state, report.warmed, wanted.warm)
            await warming.open()
            try:
                for _ in range(LOOKS):
                    if await warming.look(self._told_warm) < GAVE_ENOUGH:
                        break
            finally:
                await warming.close()
        while not await filler.caught_up():
            self._told("warm", 1.0, f"{await filler.left():,} events have come meanwhile")

    async def _is_measure(self, name: str, state: FeatureStore) -> bool:
        """Not so a version that lost something, is of another log, or is far behind."""
        if await state.probe() is not None:
            return False
        try:
            spans = await spans_of(at_version(self._settings, name), state)
        except (StateLostError, LogRewoundError, LogGoneError) as error:
            log.warning("not_compared", reason=str(error))
            return False
        return sum(missing(spans).values()) <= FEW

    def _told_warm(self, done: int, pairs: int) -> None:
        self._told("warm", done / max(1, pairs), f"{done:,} of {pairs:,} ready answers")

    async def _switch(
        self, begun: Rebuild, filler: Filler, live: Settings, target: Settings
    ) -> None:
        """Have everyone go to the version."""
        self._refuse_pinned(await self._versions.processes(), begun.target)
        if not await filler.hand_over():
            log.warning("stream_workers_there_already", version=begun.target)
        await self._hand_impressions_over(live, target)
        _, journal = await self._versions.look()
        assert begun.before is not None
        switched = Journal(
            versions=journal.versions | {begun.before: journal.versions.get(begun.before, _FILLED)},
            previous=begun.before,
            rebuild=structs.replace(begun, phase="settle"),
        )
        if not await self._versions.switch(begun.before, begun.target, switched):
            raise RebuildRefusedError(
                f"{begun.before} is not live any more: somebody else has switched. Look at "
                "onebar rebuild status"
            )
        log.info("state_version_switched", before=begun.before, to=begun.target)

    async def _hand_impressions_over(self, live: Settings, target: Settings) -> None:
        """Have the generators go on where they are: at the log's end, but for what is in hand."""
        counts = await partition_counts(self._settings)
        name = self._settings.topic_prefix + IMPRESSIONS
        pairs = [(name, p) for p in range(counts.get(name, 0))]
        done = await committed_offsets(live, generator_group(live), pairs)
        ends = await end_offsets(self._settings, pairs)
        begin = {pair: min(done[pair] or end, end) for pair, end in ends.items()}
        if not await set_committed(target, generator_group(target), begin):
            log.warning("generators_there_already", version=target.state_version)

    async def _settle(self, filler: Filler, target: str, report: Report) -> None:
        """Wait until every process has come, and the stream workers are as far as the filler."""
        began = time.monotonic()
        had_workers = False
        place: Mapping[tuple[str, int], int] | None = None
        while True:
            processes = await self._versions.processes()
            had_workers |= any(each.kind == "stream" for each in processes)
            late = elsewhere(processes, target)
            report.missing = [str(each) for each in late]
            if not late:
                place = place or filler.place
                if not had_workers or await filler.taken_over(place):
                    break
            took = time.monotonic() - began
            if took > SETTLE_WITHIN_S:
                log.warning("processes_not_moved", processes=report.missing)
                break
            self._told("settle", 1 - len(late) / max(1, len(processes)), f"{len(late)} to come")
            await asyncio.sleep(POLL_S)
        report.settle_s = time.monotonic() - began
        report.events, report.refused = filler.events, filler.refused

    async def _finish(self, begun: Rebuild, before: FeatureStore, report: Report) -> None:
        """Keep the version before, or drop it, and end the rebuild."""
        if begun.drop and report.live != begun.target and not report.missing:
            await self._note(begun, "drop")
            report.dropped = await self._drop(before)
        _, journal = await self._versions.look()
        await self._versions.write(structs.replace(journal, rebuild=None))

    async def drop(self, name: str) -> int:
        """Drop a version that is not live; how many keys it had. Raises `RebuildRefusedError` and
        `RebuildRunningError`."""
        async with _sole(), self._lease():
            live, journal = await self._versions.look()
            if name == live:
                raise RebuildRefusedError(f"{name} is live: switch to another version first")
            there = [each for each in await self._versions.processes() if each.version == name]
            if there:
                raise RebuildRefusedError(f"still on {name}: {', '.join(map(str, there))}")
            store = self._store.of(name)
            if name not in journal.versions and not any(await store.entities(1)):
                raise RebuildRefusedError(f"there is no version {name}: onebar rebuild status")
            return await self._drop(store)

    async def _drop(self, store: FeatureStore) -> int:
        name = store.keys.state_version
        dropped = await drop(
            store, lambda gone, keys: self._told("drop", gone / max(keys, gone), f"{gone:,} keys")
        )
        _, journal = await self._versions.look()
        rest = {other: each for other, each in journal.versions.items() if other != name}
        rebuild = journal.rebuild
        if rebuild is not None and rebuild.target == name:
            rebuild = None
        previous = None if journal.previous == name else journal.previous
        await self._versions.write(Journal(rest, previous, rebuild))
        return dropped

    def _begun(self, wanted: Wanted, live: str, journal: Journal) -> Rebuild:
        """The rebuild that this is: the one under way, if any. Raises `RebuildRefusedError`."""
        begun = journal.rebuild
        if begun is not None and wanted.target in (None, begun.target):
            if wanted.since not in (None, begun.since):
                raise RebuildRefusedError(
                    f"the rebuild of {begun.target} that has not ended is of another time: give it "
                    f"up (onebar rebuild drop {begun.target}), or go on with it without --since"
                )
            return structs.replace(begun, drop=begun.drop if wanted.drop is None else wanted.drop)
        if begun is not None and not journal.versions.get(begun.target, Version()).filled:
            raise RebuildRefusedError(
                f"a rebuild of {begun.target} has not ended: go on with it (onebar rebuild), "
                f"or give it up (onebar rebuild drop {begun.target})"
            )
        taken = frozenset({live, *journal.versions})
        target = check_name(wanted.target or next_name(live, taken))
        if target == live:
            raise RebuildRefusedError(f"{target} is live already")
        if target in journal.versions and not wanted.kept:
            raise RebuildRefusedError(
                f"there is a version {target} already: go to it (onebar rebuild switch {target}), "
                f"or drop it first (onebar rebuild drop {target})"
            )
        since = journal.versions[target].since if target in journal.versions else wanted.since
        return Rebuild(target, "fill", since, bool(wanted.drop))

    async def _refuse_unfilled(self, target: Settings, state: FeatureStore) -> None:
        """Raises `RebuildRefusedError` for a version that is to be switched to and was never
        filled."""
        _, journal = await self._versions.look()
        name = target.state_version
        known = journal.versions.get(name)
        if known is not None and known.filled:
            return
        lacks = missing(await spans_of(target, state))
        if known is None and sum(lacks.values()) <= FEW and any(await state.entities(1)):
            return
        told = ", ".join(f"{count:,} records of {topic}" for topic, count in lacks.items() if count)
        raise RebuildRefusedError(
            f"version {name} is not filled: it lacks {told or 'everything'}. Fill it: onebar "
            f"rebuild --to {name}"
        )

    def _refuse_pinned(self, processes: Sequence[Process], target: str) -> None:
        pinned = [each for each in elsewhere(processes, target) if each.pinned]
        if pinned:
            told = ", ".join(f"{each} to {each.version}" for each in pinned)
            raise RebuildRefusedError(
                f"ONEBAR_STATE_VERSION pins {told}: they would not come to {target}. Unset it "
                "there, start them anew, and run the same again"
            )

    async def _mark_filled(self, begun: Rebuild) -> None:
        _, journal = await self._versions.look()
        filled = {begun.target: Version(filled=True, since=begun.since)}
        await self._versions.write(structs.replace(journal, versions=journal.versions | filled))

    async def _note(self, begun: Rebuild, phase: str) -> None:
        _, journal = await self._versions.look()
        versions = journal.versions
        if begun.target not in versions:
            versions = versions | {begun.target: Version(since=begun.since)}
        rebuild = structs.replace(begun, phase=phase)
        await self._versions.write(structs.replace(journal, versions=versions, rebuild=rebuild))

    @asynccontextmanager
    async def _lease(self) -> AsyncIterator[None]:
        """Be the one rebuild at work. One that was killed is waited for until its lease is over."""
        deadline = time.monotonic() + LEASE_S + 1.0
        while (other := await self._versions.take_lease(self._holder)) is not None:
            if time.monotonic() > deadline:
                raise RebuildRunningError(f"a rebuild is at work already: {other}")
            self._told("wait", 0.0, f"for the lease of {other}, should it have ended")
            await asyncio.sleep(POLL_S)

        async def renew() -> None:
            while True:
                await asyncio.sleep(LEASE_S / 4)
                other = await until_back(
                    lambda: self._versions.take_lease(self._holder), self._health
                )
                if other is not None:
                    raise RebuildRunningError(f"{other} has taken this rebuild over")

        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(renew())
            try:
                yield
            finally:
                renewing.cancel()
                await _quietly(self._versions.end_lease(self._holder))


_FILLED = Version(filled=True)


@asynccontextmanager
async def rebuilding(
    settings: Settings, store: FeatureStore, told: Told = lambda phase, fraction, text: None
) -> AsyncIterator[Rebuilding]:
    """A rebuild by the connection of this store."""
    yield Rebuilding(settings, store, versions_beside(store, settings), told)


def elsewhere(processes: Sequence[Process], target: str) -> list[Process]:
    """Those that are on another version; pure."""
    return [each for each in processes if each.version != target]


def missing(spans: Spans) -> dict[str, int]:
    """Records to be read, by topic; pure."""
    found: dict[str, int] = {}
    for (topic, _), span in spans.items():
        found[topic] = found.get(topic, 0) + span.missing
    return found


def duration(seconds: float) -> str:
    """In words as short as they can be; pure."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _whole(spans: Spans, since: float | None) -> bool:
    """Whether the log has all behaviours that there ever were."""
    return since is None and not any(
        span.begin for (topic, _), span in spans.items() if topic == BEHAVIORS
    )


def _differs(target: str, live: str, found: Comparison) -> str:
    lines = "\n  ".join(found.differences)
    return (
        f"{target} holds something else than {live} for {found.differing:,} of "
        f"{found.videos + found.users:,} videos and users looked at, though both had the same log. "
        f"Where that is as it should be ({live} lost something, or the settings are others), run "
        f"the same with --accept-differences:\n  {lines}"
    )


@asynccontextmanager
async def _sole() -> AsyncIterator[None]:
    """An error that came out of tasks side by side is raised as it is."""
    try:
        yield
    except ExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from group


async def _quietly(work: Awaitable[None]) -> None:
    try:
        await work
    except OneBarError as error:
        log.warning("lease_not_given_back", error=str(error))
