"""Values read from Redis and kept in this process until Redis says that they changed; pure.

Redis remembers which keys a connection has read (`CLIENT TRACKING`) and tells it of the first
change of each. What is kept is therefore as good as what Redis has, but for the moment that such
word takes, as long as three rules hold: nothing is kept of a connection that is lost, nothing
outlives the word that it changed, and what changed while it was being read is not kept at all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Reading(Generic[Key]):
    """Keys that are being read from Redis, and those that changed meanwhile."""

    __slots__ = ("changed", "void")

    def __init__(self) -> None:
        self.changed: set[Key] = set()
        self.void = False


class Kept(Generic[Key, Value]):
    """Values of at most `limit` bytes, as `size_of` has them; those not asked for lately go first.

    They live in two generations. When the young one has grown to half of the limit it becomes the
    old one, and what nobody asked for since the last time goes with the old one. Nothing is kept
    before `trust` and after `distrust`.
    """

    def __init__(self, limit: int, size_of: Callable[[Iterable[tuple[Key, Value]]], int]) -> None:
        self._half = limit // 2
        self._size_of = size_of
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}
        self._size = 0  # of the young ones
        self.turns = 0
        """Generations that have become old so far."""
        self._readings: set[Reading[Key]] = set()
        self._trusted = False

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: Key) -> Value | None:
        """The value kept, if any."""
        value = self._young.get(key)
        if value is None and (value := self._old.pop(key, None)) is not None:
            self._add({key: value})
        return value

    @contextmanager
    def reading(self) -> Iterator[Reading[Key]]:
        """To be entered before a read is sent to Redis, and left when its values are kept."""
        reading: Reading[Key] = Reading()
        self._readings.add(reading)
        try:
            yield reading
        finally:
            self._readings.discard(reading)

    def keep(self, reading: Reading[Key], values: Mapping[Key, Value]) -> None:
        """Keep what was read, but for what changed meanwhile."""
        if not self._trusted or reading.void:
            return
        if reading.changed:
            values = {key: value for key, value in values.items() if key not in reading.changed}
        self._add(values)

    def change(self, key: Key) -> None:
        """The key has another value now."""
        if (value := self._young.pop(key, None)) is not None:
            self._size -= self._size_of(((key, value),))
        self._old.pop(key, None)
        for reading in self._readings:
            reading.changed.add(key)

    def change_all(self) -> None:
        """Any key may have another value now."""
        self._young, self._old, self._size = {}, {}, 0
        for reading in self._readings:
            reading.void = True

    def trust(self) -> None:
        """From now on every change will be told."""
        self._trusted = True

    def distrust(self) -> None:
        """Changes may go untold."""
        self._trusted = False
        self.change_all()

    def _add(self, values: Mapping[Key, Value]) -> None:
        young = self._young
        self._size += self._size_of(values.items()) - self._size_of(
            [(key, young[key]) for key in values.keys() & young.keys()]
        )
        self._young.update(values)
        if self._size > self._half:
            self._young, self._old, self._size = {}, self._young, 0
            self.turns += 1
