"""What integration tests share: waiting for a condition, and real workers as child processes."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from onebar.settings import Settings
from onebar.stack.processes import Child, Children
from onebar.stack.variables import environment

WAIT_S = 30.0


async def eventually(
    condition: Callable[[], Any],
    timeout: float = WAIT_S,  # noqa: ASYNC109
    *,
    interval: float = 0.03,
    what: str | None = None,
) -> Any:
    """The first true value of `condition()`, which may be a coroutine function.

    Raises `AssertionError` with the last value when `timeout` seconds have passed.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = condition()
        value: Any = await found if inspect.isawaitable(found) else found
        if value:
            return value
        if time.monotonic() > deadline:
            name = what or getattr(condition, "__name__", "condition")
            raise AssertionError(f"{name} was still {value!r} after {timeout:g} s")
        await asyncio.sleep(interval)


def eventually_sync(condition: Callable[[], Any], timeout: float = WAIT_S) -> Any:
    """`eventually` without an event loop."""
    return asyncio.run(eventually(condition, timeout))


class Workers:
    """Starts `onebar ...` processes with a test's settings; all end with the test."""

    def __init__(self, children: Children, settings: Settings, directory: Path) -> None:
        self._children = children
        self._settings = settings
        self._directory = directory
        self._count = 0

    def start(self, *arguments: str, settings: Settings | None = None, **env: str) -> Child:
        """`onebar ARGUMENTS` in a process of its own, not waited for."""
        self._count += 1
        name = f"{arguments[0]}-{self._count}"
        return self._children.start(
            name,
            [sys.executable, "-P", "-m", "onebar", *arguments],
            self._directory / f"{name}.log",
            env=environment(settings or self._settings) | env,
        )

    def stop(self, child: Child) -> int:
        """SIGTERM; the exit status."""
        self._children.end(child)
        return int(child.process.returncode)

    def kill(self, child: Child) -> None:
        """SIGKILL, and wait until it is gone."""
        child.signal(signal.SIGKILL)
        child.process.wait()
        self._children.end(child)

    async def ready(self, child: Child, settings: Settings, within_s: float = WAIT_S) -> None:
        """Wait for a worker with a metrics port to be healthy, or for the API to be ready."""
        port = settings.metrics_port
        url = f"http://{settings.metrics_host}:{port}/healthz"
        if child.name.startswith("api"):
            url = f"http://{settings.api_host}:{settings.api_port}/readyz"
        async with httpx.AsyncClient() as http:

            async def answers() -> bool:
                child.check()
                try:
                    return (await http.get(url, timeout=2)).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(answers, within_s, what=f"{child.name} at {url}")


class Stack:
    """`onebar up` with the embedded servers, whatever the environment names."""

    def __init__(self, run_dir: Path, **variables: str) -> None:
        self.run_dir = run_dir
        self.err = run_dir / "up.err"
        self.out = run_dir / "up.out"
        servers = ("ONEBAR_KAFKA_BOOTSTRAP", "ONEBAR_REDIS_URL")
        env = {name: value for name, value in os.environ.items() if name not in servers}
        env |= variables
        with self.err.open("wb") as err, self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "onebar",
                    "up",
                    "--port",
                    "0",
                    "--run-dir",
                    run_dir,
                ],
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                env=env,
            )

    def up(self) -> bool:
        said = self.err.read_text()
        assert self.process.poll() is None, said
        return "Ctrl-C ends all of it" in said

    @property
    def exports(self) -> dict[str, str]:
        lines = [line.removeprefix("export ") for line in self.out.read_text().splitlines()]
        return {name: value.strip("'") for name, _, value in (s.partition("=") for s in lines)}

    @property
    def url(self) -> str:
        [line] = [line for line in self.err.read_text().splitlines() if line.startswith("API: ")]
        return line.removeprefix("API: ").removesuffix("/docs")

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def onebar(
    *arguments: str,
    settings: Settings | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run an `onebar` command to its end."""
    base = dict(os.environ) if settings is None else environment(settings)
    return subprocess.run(
        [sys.executable, "-P", "-m", "onebar", *arguments],
        env=base | dict(env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@contextmanager
def workers(settings: Settings, directory: Path) -> Iterator[Workers]:
    with Children() as children:
        yield Workers(children, settings, directory)
