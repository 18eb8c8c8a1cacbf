"""The clean offline fold of a log: what the state must be once the workers have read all of it.

The events go through the same `stream.workers.ingest.to_writes` as in the worker, into
dictionaries."""

from __future__ import annotations

import time
from collections import Counter

from feature_store.memory import MemoryStore
from feature_store.snapshot import StateSnapshot
from feature_store.writes import InvalidWriteError
from onebar.policy import StatePolicy
from stream.events import Event, InvalidEventError, encode
from stream.events.pseudonyms import NONE, Pseudonyms
from stream.kafka.records import Record
from stream.logs.files import Log
from stream.workers.dead_letters import FutureEventError
from stream.workers.ingest import to_writes


class OfflineFold:
    """Folds events as they come; `dead_letters` counts those that a worker puts aside.

    A worker compares an event's `ts` with the time at which Kafka took it, this fold with `now`,
    the time of the replay: an event within seconds of the allowance may be judged differently.
    """

    def __init__(
        self,
        policy: StatePolicy,
        *,
        future_allowance_s: float,
        now: float | None = None,
        pseudonyms: Pseudonyms = NONE,
    ) -> None:
        self._pseudonyms = pseudonyms
        self._store = MemoryStore(policy)
        self._allowance_s = future_allowance_s
        self._now = time.time() if now is None else now
        self.events = 0
        self.dead_letters = 0
        self.types: Counter[str] = Counter()

    def add(self, event: Event, *, at: float | None = None) -> None:
        """Take the next event in; in which order they come makes no difference.

        `at` is when it was sent, where that is not the time of the replay.
        """
        self.events += 1
        self.types[event.type] += 1
        taken_at = self._now if at is None else at
        record = Record(event.topic, 0, self.events, taken_at, None, encode(event))
        try:
            _, entries = to_writes(record, self._allowance_s, self._pseudonyms)
        except (InvalidEventError, FutureEventError, InvalidWriteError):
            self.dead_letters += 1
            return
        for write, _ in entries:
            self._store.apply(write, None)

    def add_log(self, log: Log) -> None:
        """Take a whole log in; a line that is no event is a dead letter. Raises as the log does."""
        for entry in log.entries():
            if entry.event is None:
                self.dead_letters += 1
            else:
                self.add(entry.event)

    def snapshot(self) -> StateSnapshot:
        """The state after everything added so far."""
        return self._store.snapshot()
