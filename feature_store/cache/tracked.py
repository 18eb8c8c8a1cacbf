"""Values read from Redis and kept in this process until Redis says that they changed; pure.

Redis remembers which keys a connection has read (`CLIENT TRACKING`) and tells it of the first
change of each. What is kept is therefore as good as what Redis has, but for the moment that such
word takes, as long as three rules hold: nothing is kept of a connection that is lost, nothing
outlives the word that it changed, and what changed while it was being read is not kept at all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from sys import getsizeof
from typing import Generic, TypeVar

ROOM_BYTES = 220
"""Most that a group takes for each of its keys."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Reading:
    """The keys and groups that changed while values were being read from Redis."""

    __slots__ = ("changed", "void")

    def __init__(self) -> None:
        self.changed: set[Hashable] = set()
        self.void = False


class TrackedValues(Generic[Key, Value]):
    """Values of at most `limit` bytes, as `size_of` has them; those not asked for lately go first.

    Values that all hang on something else as well are a group: when that changes, all of them go.
    `group_of` names the group of a key, if it is in one; no group is named as a key is.

    They live in two cohorts. When the young one has grown to half of the limit it becomes the
    old one, and what nobody asked for since the last time goes with the old one. Nothing is kept
    before `trust` and after `distrust`; what was kept up to a `distrust` can still be had as
    `last_known`, up to the next `trust`.
    """

    def __init__(
        self,
        limit: int,
        size_of: Callable[[Iterable[tuple[Key, Value]]], int],
        group_of: Callable[[Key], Hashable | None],
    ) -> None:
        self._half = limit // 2
        self._size_of = size_of
        self._group_of = group_of
        self._young: _Cohort[Key, Value] = _Cohort(group_of)
        self._old: _Cohort[Key, Value] = _Cohort(group_of)
        self._last: tuple[_Cohort[Key, Value], ...] = ()
        self._size = 0  # of the young ones
        self.turns = 0
        """Cohorts that have become old so far."""
        self._readings: set[Reading] = set()
        self._trusted = False

    def __len__(self) -> int:
        return len(self._young.values) + len(self._old.values)

    def get(self, key: Key) -> Value | None:
        """The value kept, if any."""
        value = self._young.values.get(key)
        if value is None and key in self._old.values:
            value = self._old.take(key)
            self._add({key: value})
        return value

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """To be entered before a read is sent to Redis, and left when its values are kept."""
        reading = Reading()
        self._readings.add(reading)
        try:
            yield reading
        finally:
            self._readings.discard(reading)

    def keep(self, reading: Reading, values: Mapping[Key, Value]) -> None:
        """Keep what was read, but for what changed meanwhile."""
        if not self._trusted or reading.void:
            return
        changed = reading.changed
        if changed:
            values = {
                key: value
                for key, value in values.items()
                if key not in changed and self._group_of(key) not in changed
            }
        self._add(values)

    def change(self, key: Key) -> None:
        """The key has another value now."""
        if key in self._young.values:
            self._size -= self._size_of(((key, self._young.take(key)),))
        if key in self._old.values:
            self._old.take(key)
        for reading in self._readings:
            reading.changed.add(key)

    def change_group(self, group: Hashable) -> None:
        """What the keys of the group hang on has changed."""
        self._size -= self._size_of(self._young.take_group(group))
        self._old.take_group(group)
        for cohort in self._last:
            cohort.take_group(group)
        for reading in self._readings:
            reading.changed.add(group)

    def change_all(self) -> None:
        """Any key may have another value now."""
        self._young, self._old = _Cohort(self._group_of), _Cohort(self._group_of)
        self._size = 0
        for reading in self._readings:
            reading.void = True

    def trust(self) -> None:
        """From now on every change will be told."""
        self._trusted = True
        self._last = ()

    def distrust(self) -> None:
        """Changes may go untold."""
        if self._trusted:
            self._last = (self._young, self._old)
        self._trusted = False
        self.change_all()

    def last_known(self, key: Key) -> Value | None:
        """The value that was kept when the trust was lost, if any."""
        for cohort in self._last:
            if (value := cohort.values.get(key)) is not None:
                return value
        return None

    def forget_last_known(self) -> None:
        """It is too old by now."""
        self._last = ()

    def _add(self, values: Mapping[Key, Value]) -> None:
        replaced = self._young.put(values)
        self._size += self._size_of(values.items()) - self._size_of(replaced)
        if self._size > self._half:
            self._young, self._old = _Cohort(self._group_of), self._young
            self._size = 0
            self.turns += 1


class _Cohort(Generic[Key, Value]):
    """Values by their keys, and the keys of each group."""

    __slots__ = ("_group_of", "_groups", "values")

    def __init__(self, group_of: Callable[[Key], Hashable | None]) -> None:
        self._group_of = group_of
        self._groups: dict[Hashable, set[Key]] = {}
        self.values: dict[Key, Value] = {}

    def put(self, values: Mapping[Key, Value]) -> list[tuple[Key, Value]]:
        """Put these in. What they replace is returned."""
        replaced = [(key, self.values[key]) for key in values.keys() & self.values.keys()]
        self.values.update(values)
        for key in values:
            if (group := self._group_of(key)) is not None:
                self._groups.setdefault(group, set()).add(key)
        return replaced

    def take(self, key: Key) -> Value:
        """Take the value of a key out. Raises `KeyError`."""
        value = self.values.pop(key)
        if (group := self._group_of(key)) is not None:
            members = self._groups[group]
            members.discard(key)
            if not members:
                del self._groups[group]
            elif getsizeof(members) > ROOM_BYTES * len(members):
                self._groups[group] = members.copy()  # a set does not shrink by itself
        return value

    def take_group(self, group: Hashable) -> list[tuple[Key, Value]]:
        """Take out what is in a group."""
        return [(key, self.values.pop(key)) for key in self._groups.pop(group, ())]
