"""`onebar up`: the local stack, without a feed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from onebar.settings import Settings
from onebar.stack.local import LocalStack
from onebar.stack.variables import exports


async def stay_up(settings: Settings, run_dir: Path, say: Callable[[str], None]) -> None:
    """Run the stack until cancelled; prints how to point other commands at it."""
    async with LocalStack(settings, run_dir, own_names=False, say=say) as stack:
        say(f"API: {stack.url}/docs")
        for line in exports(stack.settings):
            print(line, flush=True)
        say("Ctrl-C ends all of it")
        await stack.guard(asyncio.Event().wait())
