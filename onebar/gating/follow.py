"""A gate whose rules and repertoire follow those in a store."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import ClassVar, Protocol, TypeVar

import structlog
from prometheus_client import Gauge

from onebar.errors import OneBarError
from onebar.gating.gate import Gate
from onebar.records import Rule

log = structlog.get_logger(__name__)

T = TypeVar("T")

POLL_S = 0.25
"""How often the store is asked whether a rule changed: so long a change takes to hold here at most,
and as long as it takes to read."""
UNREAD = 2**64 - 1
"""In the place of a version: of what was read of another state."""
AT_ONCE = 500
"""Rules taken in between two looks of the event loop at anything else."""
RULES = Gauge("onebar_rules", "Rules that hold in this process.", multiprocess_mode="max")


REPERTOIRE = Gauge(
    "onebar_repertoire", "Queries of the repertoire in this process.", multiprocess_mode="max"
)


class RuleSource(Protocol):
    """Where rules are kept: `feature_store.store.FeatureStore`."""

    async def rules_version(self) -> int:
        """Another number, other rules."""
        ...

    async def rules_since(self, version: int) -> Mapping[str, Rule | None]:
        """What changed after a version; None for a rule that was taken back."""
        ...


class RepertoireSource(Protocol):
    """Where the repertoire is kept: `feature_store.repertoire.RepertoireStore`."""

    async def version(self) -> tuple[int, int]:
        """Another first number, another repertoire; the second is the version that last took a
        query out."""
        ...

    async def since(self, version: int) -> tuple[Sequence[str], Sequence[str]] | None:
        """What came and what went after a version; None where that is not known any more."""
        ...


class _Follower(ABC):
    """Looks at the store again and again. While it is away all stays as it was."""

    what: ClassVar[str]

    def __init__(self, gate: Gate, poll_s: float) -> None:
        self._gate = gate
        self._poll_s = poll_s

    @abstractmethod
    def restart(self) -> None:
        """What the store holds from now on is of another state: the next look reads all of it, and
        until then nothing counts as having passed."""

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.look()
            except OneBarError as error:
                log.warning(f"{self.what}_unread", error=str(error), open=self._gate.open)
                await asyncio.sleep(4 * self._poll_s)
            await asyncio.sleep(self._poll_s)

    @abstractmethod
    async def look(self) -> None:
        """Take in what changed since the last look. Raises what the store does."""


async def _in_turn(changes: Iterable[T]) -> AsyncIterator[T]:
    """These, with a look of the event loop at other things after every `AT_ONCE`."""
    for number, change in enumerate(changes, 1):
        yield change
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)


class RepertoireFollower(_Follower):
    """Keeps a gate's repertoire that of the store."""

    what = "repertoire"

    def __init__(self, store: RepertoireSource, gate: Gate, *, poll_s: float = POLL_S) -> None:
        super().__init__(gate, poll_s)
        self._store = store

    def restart(self) -> None:
        self._gate.repertoire.version = self._gate.repertoire.cut = UNREAD

    async def look(self) -> None:
        repertoire = self._gate.repertoire
        version, cut = await self._store.version()
        if version == repertoire.version:
            return
        # Where there are fewer versions than before, they are those of another state.
        changed = None
        if repertoire.version < version:
            changed = await self._store.since(repertoire.version)
        if changed is None:
            every, _ = await self._store.since(0) or ((), ())
            changed = every, sorted(repertoire.all_known().difference(every))
        added, gone = changed
        changes = [*((repertoire.remove, q) for q in gone), *((repertoire.add, q) for q in added)]
        async for change, query in _in_turn(changes):
            change(query)
        repertoire.version, repertoire.cut = version, cut
        REPERTOIRE.set(len(repertoire))
        log.info("repertoire_read", queries=len(repertoire), came=len(added), went=len(gone))


class RuleFollower(_Follower):
    """Keeps a gate's rules those of the store, and opens it once they are known."""

    what = "rules"

    def __init__(self, store: RuleSource, gate: Gate, *, poll_s: float = POLL_S) -> None:
        super().__init__(gate, poll_s)
        self._store = store

    def restart(self) -> None:
        self._gate.rules.version = UNREAD

    async def look(self) -> None:
        rules = self._gate.rules
        version = await self._store.rules_version()
        if version == rules.version and self._gate.open:
            return
        since = rules.version
        if version < since:  # they were lost, or they are those of another state
            since = 0
        changed = await self._store.rules_since(since)
        if since == 0:
            for rule_id in [rule.rule_id for rule in rules if rule.rule_id not in changed]:
                self._gate.take(rule_id, None)
        async for rule_id, rule in _in_turn(changed.items()):
            self._gate.take(rule_id, rule)
        rules.version = version
        self._gate.open = True
        RULES.set(len(rules))
        log.info("rules_read", rules=len(rules), changed=len(changed), version=version)
