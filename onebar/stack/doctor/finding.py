"""What a check finds, and how a check that raises is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from onebar.errors import OneBarError

TIMEOUT_S = 15.0


class Finding(Struct, frozen=True):
    """What one check came to. `ok` None: not there, and not needed by everyone. A `warning` is fine
    today, and will not be one day."""

    name: str
    ok: bool | None
    found: str
    advice: str = ""
    warning: bool = False

    @property
    def mark(self) -> str:
        """In four letters."""
        if self.warning:
            return "warn"
        return {True: "ok", False: "FAIL", None: "-"}[self.ok]


def warn(name: str, found: str, advice: str) -> Finding:
    """What works, and should not stay so."""
    return Finding(name, True, found, advice, warning=True)


Check = Callable[[], Awaitable[list[Finding]]]


async def run(name: str, check: Check, advice: str) -> list[Finding]:
    """What a check finds; where it raises, that. An error of ours says what to do by itself."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await check()
    except TimeoutError:
        return [Finding(name, False, f"no answer within {TIMEOUT_S:g} s", advice)]
    except OneBarError as error:
        return [Finding(name, False, str(error), advice)]
    except Exception as error:
        return [Finding(name, False, f"{type(error).__name__}: {error}", advice)]
