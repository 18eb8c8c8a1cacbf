"""What the nodes of Redis say of themselves, asked around their lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from feature_store.redis.client import Command, connect, pipelined

SETTLES_S = 60.0
"""How long after another Redis took over the loss of state may still be found."""


class Nodes:
    """The nodes, by their own ports; none where they are others'."""

    def __init__(
        self, ports: Sequence[int] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.ports = ports
        self._clock = clock
        self.successions = 0
        """How often another history of writes was gone on with than before: a replica took its
        primary's place, or a primary came again from its disk."""
        self._histories: frozenset[str] = frozenset()
        self._changed_at = float("-inf")

    async def asked(self, at: int, *words: str) -> bytes:
        """What a node answers; nothing where it does not."""
        client = connect(f"redis://127.0.0.1:{self.ports[at]}", timeout_s=2.0)
        try:
            [reply] = await pipelined(client, [Command(words[0], (), words[1:])])
            return bytes(reply)
        except Exception:
            return b""
        finally:
            await client.aclose()

    async def all_asked(self, *words: str) -> list[bytes]:
        """What each answers."""
        return [await self.asked(at, *words) for at in range(len(self.ports))]

    async def primaries(self) -> list[int]:
        """Which are primaries now; all where none says so."""
        told = await self.all_asked("INFO", "replication")
        return [at for at, one in enumerate(told) if b"role:master" in one] or [*range(len(told))]

    async def look(self) -> bool:
        """Note whose histories are gone on with now; whether they are others than before."""
        told = await self.all_asked("INFO", "replication")
        found = frozenset(map(_history, (one for one in told if b"role:master" in one)))
        if not found or found == self._histories:
            return False
        first, self._histories = not self._histories, found
        if first:
            return False
        self.successions += 1
        self._changed_at = self._clock()
        return True

    def may_have_lost(self) -> bool:
        """Whether a history was left behind lately: then so may have been state. Where nobody can
        be asked, it may have been."""
        return not self._histories or self._clock() - self._changed_at < SETTLES_S


def _history(told: bytes) -> str:
    """The name of a primary's history; a replica that takes its place has a new one."""
    lines = (line.partition(":") for line in told.decode(errors="replace").splitlines())
    return next((value for name, _, value in lines if name == "master_replid"), "")
