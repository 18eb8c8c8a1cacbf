"""The processes of OneBar, kept running as an orchestrator would: what ends is started again."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import httpx

from onebar.process.tasks import end_tasks
from onebar.settings import Settings
from onebar.stack.processes import Child, Children
from onebar.stack.servers import free_port
from onebar.stack.variables import environment

LOST = "Redis lost what it held"
"""What a stream worker says where the state is not whole: then a person builds it anew."""
END_WITHIN_S = 10.0
"""What SIGTERM may take, in any state."""
AGAIN_S = 0.5


class Member:
    """One process that is to run: `onebar ROLE`."""

    def __init__(self, role: str, number: int, settings: Settings, directory: Path) -> None:
        port = free_port()
        named = {"api_port": port} if role == "api" else {"metrics_port": port}
        self.role = role
        self.name = f"{role}-{number}"
        self.settings = settings.model_copy(update=named)
        self.log = directory / f"{self.name}.log"
        self.child: Child | None = None
        self.held = False
        """Nobody starts it again while it is."""
        self.ended = ""
        """How it ended last, if by itself."""
        path = "readyz" if role == "api" else "healthz"
        self.health = f"http://127.0.0.1:{port}/{path}"

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.running


class Fleet:
    """The members, and what became of them."""

    def __init__(self, children: Children, settings: Settings, directory: Path) -> None:
        self._children = children
        self._directory = directory
        self._count = 0
        self.settings = settings
        self.members: list[Member] = []
        self.lost = asyncio.Event()
        self.ends: list[str] = []
        """Members that ended by themselves, and what they said last."""
        self.stops_s: list[tuple[str, float]] = []
        """How long each took that was asked to end."""
        self._task: asyncio.Task[None] | None = None

    def add(self, role: str) -> Member:
        """One more, which is started."""
        self._count += 1
        member = Member(role, self._count, self.settings, self._directory)
        self.members.append(member)
        self.begin(member)
        return member

    def of(self, *roles: str) -> list[Member]:
        """Those that run."""
        return [member for member in self.members if member.role in roles and member.running]

    def begin(self, member: Member) -> None:
        update = {"state_version": self.settings.state_version}
        member.settings = member.settings.model_copy(update=update)
        member.child = self._children.start(
            member.name,
            [sys.executable, "-P", "-m", "onebar", member.role],
            member.log,
            env=environment(member.settings),
        )
        member.held = False

    def kill(self, member: Member) -> None:
        """SIGKILL; it is started again soon."""
        if member.child is not None:
            member.child.signal(signal.SIGCONT)
            member.child.kill_group()

    async def stop(self, member: Member) -> None:
        """SIGTERM, and wait; it is not started again. What is left after twice the time it may take
        is killed, and told."""
        member.held = True
        child = member.child
        if child is None or not child.running:
            return
        began = time.monotonic()
        child.signal(signal.SIGCONT)
        child.signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(child.process.wait, 2 * END_WITHIN_S)
        took = time.monotonic() - began
        self.stops_s.append((member.name, took))
        if child.running:
            child.kill_group()

    async def leave(self, member: Member) -> None:
        """It goes for good."""
        await self.stop(member)
        self.members.remove(member)

    def supervise(self) -> None:
        self._task = asyncio.create_task(self._supervise())

    async def _supervise(self) -> None:
        while True:
            for member in self.members:
                child = member.child
                if member.held or child is None or child.running:
                    continue
                status = child.process.returncode
                if status != -signal.SIGKILL:
                    said = child.tail(12)
                    if LOST in said:
                        self.lost.set()
                    else:
                        self.ends.append(f"{member.name} ended with {status}:\n{said}")
                self._children.end(child)
                member.child = None
                self.begin(member)
            await asyncio.sleep(AGAIN_S)

    async def rest(self) -> None:
        """Look after them no more, and have them end; none may take long."""
        if self._task is not None:
            await end_tasks(self._task)
        await asyncio.gather(*(self.stop(member) for member in self.members))

    async def change(self, settings: Settings, filled: Callable[[], Awaitable[None]]) -> None:
        """Go on with another version of the state: stream workers first, and the others when it is
        `filled`, which is awaited. The API answers from the old one until then."""
        workers = [member for member in self.members if member.role != "api"]
        await asyncio.gather(*(self.stop(member) for member in workers))
        self.settings = settings
        for member in self.members:
            if member.role == "stream":
                self.begin(member)
        self.lost.clear()
        await filled()
        for member in self.members:
            if member.role == "api":
                await self.stop(member)
            if member.role != "stream":
                self.begin(member)

    async def unwell(self, http: httpx.AsyncClient, members: Sequence[Member] = ()) -> str:
        """What is not well, in words; nothing where all are."""
        for member in members or self.members:
            told = "no answer"
            with suppress(httpx.HTTPError):
                answer = await http.get(member.health, timeout=3)
                if answer.status_code == 200:
                    continue
                told = answer.text[:300]
            return f"{member.name}: {told}"
        return ""
