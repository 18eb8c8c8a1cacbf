"""`onebar up`: the local stack, without a feed."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from pathlib import Path

from onebar.settings import Settings
from onebar.stack.local import LocalStack
from onebar.stack.variables import variables


async def stay_up(settings: Settings, run_dir: Path, say: Callable[[str], None]) -> None:
    """Run the stack until cancelled; prints how to point other commands at it."""
    async with LocalStack(settings, run_dir, own_names=False, say=say) as stack:
        say(f"API: {stack.url}/docs")
        for name, value in variables(stack.settings, secrets=False).items():
            print(f"export {name}={shlex.quote(value)}", flush=True)
        say("Ctrl-C ends all of it")
        await stack.guard(asyncio.Event().wait())
