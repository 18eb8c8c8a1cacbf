"""The world in turns: what happened since the last one, and who now waits for a bar."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from stream.events import Event
from stream.simulator.truth import TruthRecord
from stream.simulator.world import Visit, World


class Turn(Struct, frozen=True):
    """Events to tell in their order, the truth that came with them, and the visits that wait."""

    events: list[Event]
    truths: list[TruthRecord]
    visits: list[Visit]


class LoopWorld(World):
    """A world whose bars somebody else fills: between two turns each visit of the first one is to
    be answered (`expose`, `react`)."""

    @property
    def emitted(self) -> int:
        """Events told so far."""
        return self._emitted

    def turns(self, size: int) -> Iterator[Turn]:
        """Turns of `size` visits (>= 1) until `config.events` events are told, then one with what
        the last visits led to. The first has the first videos, and no visit."""
        turn = Turn([], [], [])
        videos, events = self.config.video_count, self.config.events
        first = min(videos, max(1, self.config.active_count // 2, videos // 50))
        while self._uploaded < first:
            self._put(turn, self._upload())
        yield turn
        turn = Turn([], [], [])
        while self._emitted < events:
            until = self._clock()
            for event in self._due(until):
                self._put(turn, event)
            self._now = until
            if self._uploaded < first + (videos - first) * self._emitted // events:
                self._put(turn, self._upload())
                continue
            visit = self.visit()
            self._put(turn, visit.impression)
            turn.visits.append(visit)
            if len(turn.visits) >= size:
                yield turn
                turn = Turn([], [], [])
        yield turn
        last = Turn([], [], [])
        for event in self._due(self.config.end_ts):
            self._put(last, event)
        yield last

    def _put(self, turn: Turn, event: Event) -> None:
        turn.truths.extend(self._truths)
        self._truths.clear()
        turn.events.append(event)
        self._emitted += 1
