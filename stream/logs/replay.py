"""Replaying a log: its events go to Kafka again, at any speed, and an interruption does no harm.

Where a replay stands is written down only once Kafka has acknowledged everything up to there.
What was sent after that and before a crash is sent again with the same `event_id`s, so it counts
once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from onebar.process.files import replace_file
from stream.events import Event, Impression, InvalidEventError, Video
from stream.kafka.producer import EventProducer, Message
from stream.kafka.records import Record
from stream.logs.dead_letters import key_of, topic_of
from stream.logs.files import Identity, Log, LogEntry, LogError
from stream.workers.dead_letters import dead_letter

BATCH = 1000
GRACE_S = 0.5
MOST_NEW = 100_000
"""Videos sent and not known to be folded, before that is waited for."""
SAVE_EVERY_S = 0.5
MAX_WAIT_S = 0.05
"""Longest that an event which is due waits for company, at a speed below the maximum."""
MAX_GAP_S = 3600.0
"""Longest silence in a log that is kept, before it is scaled by the speed."""


class InvalidLineError(LogError):
    """A line that is no event, in a replay that takes none."""


class StateFileError(LogError):
    """A state file that is none of ours, or cannot be written."""


class Sink(Protocol):
    """Where a log is replayed to. Both return once it is safely there."""

    async def send(self, events: Sequence[Event]) -> None: ...

    async def reject(self, log: Path, entries: Sequence[LogEntry]) -> None:
        """Put aside lines that are no events, each with its number and reason."""
        ...


class KafkaSink:
    """Events to their topics, lines that are none to the dead letters.

    An impression follows its video by hours where it happened, and by a moment in a replay. Where
    the video was sent more than `grace_s` before, it is sent when `videos_folded` has returned,
    which waits until all videos sent so far are known. A generator waits that long by itself.
    """

    def __init__(
        self,
        producer: EventProducer,
        videos_folded: Callable[[], Awaitable[None]] | None = None,
        grace_s: float = GRACE_S,
    ) -> None:
        self._producer = producer
        self._videos_folded = videos_folded
        self._grace_s = grace_s
        self._new: set[str] = set()
        self._since = 0.0

    async def send(self, events: Sequence[Event]) -> None:
        impressions = [event for event in events if isinstance(event, Impression)]
        if self._videos_folded is None or not self._waits(events, impressions):
            await self._producer.send(events)
            return
        await self._producer.send([e for e in events if not isinstance(e, Impression)])
        await self._videos_folded()
        self._new.clear()
        await self._producer.send(impressions)

    def _waits(self, events: Sequence[Event], impressions: Sequence[Impression]) -> bool:
        """Whether these impressions have to wait for videos, those among `events` included."""
        now = time.monotonic()
        if not self._new:
            self._since = now
        self._new.update(event.video_id for event in events if isinstance(event, Video))
        if len(self._new) > MOST_NEW:
            return True
        return now - self._since >= self._grace_s and any(
            event.video_id in self._new for event in impressions
        )

    async def reject(self, log: Path, entries: Sequence[LogEntry]) -> None:
        await self._producer.send_messages([_letter(log, entry) for entry in entries])


def _letter(log: Path, entry: LogEntry) -> Message:
    """A dead letter that came from no topic: its offset is the line's number, its topic the one
    that a mended line would go to."""
    topic = topic_of(entry.data)
    record = Record(
        topic=topic,
        partition=-1,
        offset=entry.number,
        timestamp=time.time(),
        key=key_of(topic, entry.data),
        value=entry.data,
    )
    return dead_letter(
        record, InvalidEventError(f"{entry.error} ({log.name}, line {entry.number})")
    )


class Standing(Struct, frozen=True):
    """Where a replay of one log to one target stands: `position` and everything before it is
    acknowledged. `events` and `invalid` count that, over all its runs.
    """

    target: str
    log: Identity
    position: int = 0
    number: int = 0
    events: int = 0
    invalid: int = 0


class Report(Struct, frozen=True):
    """What one run of a replay did. `skipped` were acknowledged in earlier runs; of those
    `invalid_before` were no events."""

    log: str
    events: int
    invalid: int
    skipped: int
    invalid_before: int
    seconds: float
    complete: bool


class StateFile:
    """Keeps a `Standing` in a file while a replay is under way; a finished one leaves none."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, log: Log, target: str) -> Standing | None:
        """The standing to go on from; None where there is none, or it is of another log or target.

        Raises `StateFileError` for a file that is not ours.
        """
        try:
            standing = msgspec.json.decode(self.path.read_bytes(), type=Standing)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise StateFileError(
                f"{self.path} is no state of a replay ({error}): remove it, or name another "
                "with --state"
            ) from None
        if standing.target != target or not log.continues(standing.log):
            return None
        return standing

    def save(self, standing: Standing) -> None:
        """Replace the file at once. Raises `StateFileError`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, msgspec.json.encode(standing), durable=False)
        except OSError as error:
            raise StateFileError(
                f"where the replay stands cannot be written to {self.path} ({error}): "
                "name another place with --state"
            ) from None

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def state_path(log: Path) -> Path:
    """Where the state of a log's replay is kept by default: beside it, else in the user's cache."""
    if os.access(log.parent, os.W_OK):
        return log.parent / f"{log.name}.replay-state.json"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = "-".join(log.resolve().parts[1:])
    return cache / "onebar" / "replay" / f"{name}.json"


class Replay:
    """One run of a log's replay. `standing` is up to date at any time, also after an error."""

    def __init__(
        self,
        log: Log,
        sink: Sink,
        *,
        target: str = "",
        speed: float | None = None,
        strict: bool = False,
        state: StateFile | None = None,
        from_start: bool = False,
        on_progress: Callable[[Standing], None] = lambda standing: None,
    ) -> None:
        """`target` names where it goes; a state of another target is not gone on from.

        `speed` is a factor on the pace at which the log was recorded (by `ts`); None: no pause.
        `strict` ends at the first line that is no event. Raises `StateFileError`.
        """
        self._log = log
        self._sink = sink
        self._speed = speed
        self._strict = strict
        self._state = state
        self._on_progress = on_progress
        found = None if state is None or from_start else state.load(log, target)
        self.standing = found or Standing(target=target, log=log.identity())
        self._first = self.standing
        self._events: list[Event] = []
        self._rejects: list[LogEntry] = []
        self._saved_at = 0.0
        self._waiting_since = 0.0
        self._started = time.monotonic()

    async def run(self) -> Report:
        """Replay from where the last run stopped to the end of the log.

        Raises a `LogError` where the log does not end well or, with `strict`, holds a line that
        is no event: everything before that is delivered. Cancelled, or failed in sending, it
        writes down where it stands.
        """
        self._started = time.monotonic()
        try:
            try:
                await self._deliver_all()
            except LogError:
                await self._flush()
                raise
            await self._flush()
        except BaseException:
            self._save()
            raise
        if self._state is not None:
            self._state.clear()
        return self.report(complete=True)

    def report(self, *, complete: bool) -> Report:
        """What this run has done so far."""
        return Report(
            log=str(self._log.path),
            events=self.standing.events - self._first.events,
            invalid=self.standing.invalid - self._first.invalid,
            skipped=self._first.events + self._first.invalid,
            invalid_before=self._first.invalid,
            seconds=time.monotonic() - self._started,
            complete=complete,
        )

    async def _deliver_all(self) -> None:
        pace = None if self._speed is None else _Pace(self._speed)
        for entry in self._log.entries(self._first.position, self._first.number):
            if entry.event is None and self._strict:
                raise InvalidLineError(f"{self._log.path}, line {entry.number:,}: {entry.error}")
            if pace is not None and entry.event is not None:
                await self._await_turn(pace.delay(entry.event.ts))
            self._take(entry)
            if len(self._events) + len(self._rejects) >= BATCH:
                await self._flush()

    async def _await_turn(self, delay: float) -> None:
        if time.monotonic() + max(0.0, delay) - self._waiting_since > MAX_WAIT_S:
            await self._flush()
        if delay > 0:
            await asyncio.sleep(delay)

    def _take(self, entry: LogEntry) -> None:
        if not self._events and not self._rejects:
            self._waiting_since = time.monotonic()
        if entry.event is None:
            self._rejects.append(entry)
        else:
            self._events.append(entry.event)
        self._taken = entry

    async def _flush(self) -> None:
        """Deliver what was taken; only then does the standing move."""
        if not self._events and not self._rejects:
            return
        if self._events:
            await self._sink.send(self._events)
        if self._rejects:
            await self._sink.reject(self._log.path, self._rejects)
        self.standing = msgspec.structs.replace(
            self.standing,
            position=self._taken.end,
            number=self._taken.number,
            events=self.standing.events + len(self._events),
            invalid=self.standing.invalid + len(self._rejects),
        )
        self._events, self._rejects = [], []
        self._on_progress(self.standing)
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        if self._state is not None and self.standing.position:
            self._state.save(self.standing)
            self._saved_at = time.monotonic()


class _Pace:
    """When an event is due, by the time that the log was silent before it.

    Events out of order do not wait. A jump of more than `MAX_GAP_S`, either way, counts as a new
    beginning: one wrong `ts` neither stalls a replay nor lets the rest of it rush.
    """

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._latest: float | None = None
        self._due = 0.0

    def delay(self, ts: float) -> float:
        """Seconds until the event is due; negative where it is overdue."""
        now = time.monotonic()
        if self._latest is None:
            self._latest, self._due = ts, now
        gap = ts - self._latest
        if abs(gap) > MAX_GAP_S:
            self._latest = ts
            self._due += MAX_GAP_S / self._speed if gap > 0 else 0.0
        elif gap > 0:
            self._latest = ts
            self._due += gap / self._speed
        return self._due - now
