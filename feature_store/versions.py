"""Which version of the state is live: one key in Redis, and the processes that follow it.

Beside it stand a journal of the other versions and of the rebuild under way, a lease that one
rebuild holds, and a note of every process and the version it is on.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable

import msgspec
import structlog
from msgspec import Struct, structs
from prometheus_client import Gauge

from feature_store.buckets import CorruptStateError
from feature_store.keys import Keys, version_keys
from feature_store.plan import NOW
from feature_store.redis.client import Client, Command, load_script, pipelined, strings
from onebar.errors import OneBarError
from onebar.settings import FIRST_STATE_VERSION, Settings

log = structlog.get_logger(__name__)

POLL_S = 0.5
"""How often the key is looked at: so long after a switch a process stays where it was, at most."""
SAID_EVERY_S = 2.0
"""How often a process says that it is there."""
GONE_AFTER_S = 10.0
"""How long a process that says nothing more counts as being there."""
KEPT_S = 60
"""How long such a process is listed at all."""
LEASE_S = 3.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NUMBERED = re.compile(r"(.*?)(\d+)")
SWITCH = load_script("switch", "may")
PRESENT = load_script("present")
LIVE = Gauge(
    "onebar_state_version",
    "1 for the version of the state that this process reads and writes, 0 for those that it did.",
    ["version"],
    multiprocess_mode="livemax",
)


class Version(Struct, frozen=True):
    """A version of the state that is or was filled. `filled`: it had all of the log once, or from
    `since` on (UTC epoch seconds). What came after that it takes in when it is gone back to."""

    filled: bool = False
    since: float | None = None


class Rebuild(Struct, frozen=True):
    """A rebuild that has not ended: of which version, from which time on, what it is at, and what
    becomes of the version before."""

    target: str
    phase: str
    since: float | None = None
    drop: bool = False
    before: str | None = None


class Journal(Struct, frozen=True):
    """What is known of the versions that there are, and of the rebuild under way. `previous` was
    live before."""

    versions: dict[str, Version] = {}
    previous: str | None = None
    rebuild: Rebuild | None = None


class Process(Struct, frozen=True, order=True):
    """A process that follows the live version, or is `pinned` to one by ONEBAR_STATE_VERSION."""

    kind: str
    host: str
    pid: int
    version: str
    pinned: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.host}:{self.pid}"


class VersionNameError(OneBarError, ValueError):
    """What can't be the name of a version."""


def check_name(name: str) -> str:
    """Raises `VersionNameError` for what can be no part of keys and of consumer groups."""
    if not _NAME.fullmatch(name):
        raise VersionNameError(
            f"expected the name of a state version (letters, digits, `.`, `_`, `-`), got {name!r}"
        )
    return name


def next_name(live: str, taken: frozenset[str]) -> str:
    """The name of the version after this one that none has yet: `g2` after `g1`; pure."""
    numbered = _NUMBERED.fullmatch(live)
    stem, number = (numbered[1], int(numbered[2])) if numbered else (f"{live}-", 1)
    while True:
        number += 1
        if (name := f"{stem}{number}") not in taken and name != live:
            return name


def is_pinned(settings: Settings) -> bool:
    """Whether ONEBAR_STATE_VERSION says which version it is, whatever the key says."""
    return "state_version" in settings.model_fields_set


def at_version(settings: Settings, state_version: str) -> Settings:
    """The same settings for this version."""
    return settings.model_copy(update={"state_version": state_version})


class Versions:
    """The live version and the journal of one namespace. Every method raises what
    `FeatureStore`'s do."""

    def __init__(self, client: Client, namespace: str, default: str = FIRST_STATE_VERSION) -> None:
        """`default` is the live version where none was ever switched to."""
        self._client = client
        self._keys = version_keys(namespace)
        self._default = default

    async def look(self) -> tuple[str, Journal]:
        """The live version, and the journal. Raises `CorruptStateError`."""
        live, journal = await strings(self._client, [self._keys.live, self._keys.journal])
        return live.decode() if live else self._default, _journal(journal)

    async def write(self, journal: Journal) -> None:
        """Replace the journal. For who holds the lease."""
        command = Command("SET", (self._keys.journal,), (msgspec.json.encode(journal),))
        await pipelined(self._client, [command])

    async def switch(self, before: str, target: str, journal: Journal) -> bool:
        """Make `target` live, and write the journal of then. False where `before` is not live any
        more."""
        [known] = await strings(self._client, [self._keys.live])
        if (known.decode() if known else self._default) != before:
            return False
        arguments = (known or b"", target, msgspec.json.encode(journal))
        keys = (self._keys.live, self._keys.journal)
        [done] = await pipelined(self._client, [Command(SWITCH, keys, arguments)])
        return bool(done)

    async def take_lease(self, holder: str) -> str | None:
        """Take or renew the lease. Who holds it, where that is somebody else."""
        lifetime = round(LEASE_S * 1000)
        taken, found = await pipelined(
            self._client,
            [
                Command("SET", (self._keys.lease,), (holder, "NX", "PX", lifetime)),
                Command("GET", (self._keys.lease,)),
            ],
        )
        if taken is not None:
            return None
        other = "" if found is None else found.decode()
        if other != holder:
            return other
        await pipelined(self._client, [Command("PEXPIRE", (self._keys.lease,), (lifetime,))])
        return None

    async def end_lease(self, holder: str) -> None:
        """Give the lease back, if it is this holder's."""
        [found] = await strings(self._client, [self._keys.lease])
        if found is not None and found.decode() == holder:
            await pipelined(self._client, [Command("DEL", (self._keys.lease,))])

    async def holder(self) -> str | None:
        """Who holds the lease."""
        [found] = await strings(self._client, [self._keys.lease])
        return None if found is None else found.decode()

    async def say(self, process: Process, before: Process | None = None) -> None:
        """Note that this process is there; what it said before holds no more."""
        former = b"" if before is None else msgspec.json.encode(before)
        arguments = (msgspec.json.encode(process), former, KEPT_S)
        await pipelined(self._client, [Command(PRESENT, (self._keys.processes,), arguments)])

    async def leave(self, process: Process) -> None:
        """Note that it is there no more."""
        member = (msgspec.json.encode(process),)
        await pipelined(self._client, [Command("ZREM", (self._keys.processes,), member)])

    async def processes(self) -> list[Process]:
        """Those that said lately that they are there, by kind."""
        key = (self._keys.processes,)
        [now] = await pipelined(self._client, [Command(NOW, key)])
        since = (f"{int(now) / 1e6 - GONE_AFTER_S:.0f}", "+inf")
        [found] = await pipelined(self._client, [Command("ZRANGEBYSCORE", key, since)])
        return sorted(msgspec.json.decode(member, type=Process) for member in found)


def _journal(value: bytes | None) -> Journal:
    try:
        return Journal() if value is None else msgspec.json.decode(value, type=Journal)
    except msgspec.DecodeError as error:
        told = f"expected a journal of rebuilds, got {value!r:.80}: {error}"
        raise CorruptStateError(told) from None


class VersionFollower:
    """Tells a process of each other version that becomes live. The process goes there when it can,
    and calls `settle`, so that everyone knows where it is.

    Where the settings pin the version it stays there, and that is told, too.
    """

    def __init__(
        self, versions: Versions, settings: Settings, kind: str, *, poll_s: float = POLL_S
    ) -> None:
        self._versions = versions
        self.pinned = is_pinned(settings)
        self.version = settings.state_version
        """The version that this process is on, or was when it began."""
        self.others: tuple[str, ...] = ()
        """The other versions that are there, as of the last look."""
        self._poll_s = poll_s
        self._process = Process(kind, socket.gethostname(), os.getpid(), "", self.pinned)
        self._said: Process | None = None

    async def learn(self) -> str:
        """The version that this process is to be on. Raises what the store does."""
        live, journal = await self._versions.look()
        wanted = self.version if self.pinned else live
        rebuilt = () if journal.rebuild is None else (journal.rebuild.target,)
        self.others = tuple(sorted({live, *journal.versions, *rebuilt} - {wanted}))
        return wanted

    async def settle(self, version: str) -> None:
        """This process is on `version` now; say so. Does not fail."""
        if version != self.version:
            LIVE.labels(self.version).set(0)
        self.version = version
        LIVE.labels(version).set(1)
        await self._say()

    async def follow(self, move: Callable[[str], object]) -> None:
        """Look again and again, until cancelled; an awaitable that `move` returns is awaited."""
        loop = asyncio.get_running_loop()
        said = loop.time()
        asked: str | None = None
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                wanted = await self.learn()
            except OneBarError as error:
                log.warning("live_version_unread", error=str(error), version=self.version)
                continue
            if wanted not in (self.version, asked):
                log.info("state_version_moves", before=self.version, to=wanted)
                asked = wanted
                doing = move(wanted)
                if asyncio.iscoroutine(doing):
                    await doing
            elif wanted == self.version:
                asked = None
            if loop.time() - said >= SAID_EVERY_S:
                await self._say()
                said = loop.time()

    async def _say(self) -> None:
        process = structs.replace(self._process, version=self.version)
        try:
            await self._versions.say(process, self._said)
        except OneBarError as error:
            log.warning("presence_unsaid", error=str(error))
        else:
            self._said = process

    async def end(self) -> None:
        """This process ends. Does not fail."""
        if self._said is None:
            return
        try:
            await self._versions.leave(self._said)
        except OneBarError as error:
            log.warning("presence_unsaid", error=str(error))
        self._said = None


def keys_of(settings: Settings, state_version: str) -> Keys:
    """The keys of this version in the namespace of the settings."""
    return Keys(settings.namespace, state_version)
