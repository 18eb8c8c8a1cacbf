"""The processes of one server, which share a port: each says in a file whether it is ready, so that
whichever is asked answers for all of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from api.http.schemas import Readiness
from onebar.process.files import replacing

TELL_EVERY_S = 1.0
"""How often a process says how it is."""
SILENT_S = 10.0
"""One that has said nothing for so long has ended, or hangs."""
PREFIX = "ready-"


class Told(Struct, frozen=True):
    """What a process said of itself, at a moment of the machine's monotonic clock."""

    at: float
    readiness: Readiness


class Peers:
    """`count` processes that say how they are in one directory, this one under `name`."""

    def __init__(
        self,
        directory: Path,
        count: int,
        *,
        name: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._count = count
        self._own = directory / f"{PREFIX}{name or os.getpid()}"
        self._clock = clock

    def tell(self, own: Readiness) -> None:
        """Say how this process is. Raises `OSError`."""
        with replacing(self._own, durable=False) as staged:
            staged.write_bytes(msgspec.json.encode(Told(self._clock(), own)))

    def forget(self) -> None:
        """This process ends."""
        self._own.unlink(missing_ok=True)

    def together(self, own: Readiness) -> Readiness:
        """How all of them are, `own` being this one as of now."""
        others = self._others()
        return together(own, others, self._count)

    def _others(self) -> list[Readiness]:
        found = []
        for path in sorted(self._directory.glob(f"{PREFIX}*")):
            if path == self._own:
                continue
            try:
                told = msgspec.json.decode(path.read_bytes(), type=Told)
            except FileNotFoundError:  # it has ended meanwhile
                continue
            if self._clock() - told.at < SILENT_S:
                found.append(told.readiness)
        return found


def together(own: Readiness, others: Sequence[Readiness], count: int) -> Readiness:
    """What to say for `count` processes: ready where all of them are; else what the first that is
    not says is wrong, `own` before the others. Pure."""
    for one in (own, *others):
        if not one.ready:
            return one
    if len(others) + 1 < count:
        model = f"{len(others) + 1} of {count} API processes tell that they are ready"
        return replace(own, ready=False, model=model)
    warning = next((one.warning for one in (own, *others) if one.warning), None)
    return replace(own, warning=warning)
