"""Child processes that end with their parent, keep a log, and say why they died.

Each child leads a process group of its own: a Ctrl-C on the terminal reaches the parent alone,
which then ends its children in order. A watchdog process ends them where the parent could not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from onebar.errors import OneBarError

TAIL_LINES = 15
_KILL_WAIT_S = 5.0


class ChildError(OneBarError, RuntimeError):
    """A child process ended, or was not ready in time. The text ends with its last log lines."""


class Child:
    """One running child process; its output goes to the file `log`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def check(self) -> None:
        """Raises `ChildError` if the process has ended."""
        status = self.process.poll()
        if status is not None:
            how = f"status {status}" if status >= 0 else signal.Signals(-status).name
            raise ChildError(f"{self.name} ended with {how}; its log, {self.log}:\n{self.tail()}")

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of the log, indented."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - 64_000))
                text = file.read().decode(errors="replace")
        except OSError as error:
            text = f"(no log: {error})"
        return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Return once `ready()` holds. Raises `ChildError` where the child ends or is too slow."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.check()
            if ready():
                return
            if time.monotonic() > deadline:
                raise self.late(timeout_s)
            time.sleep(0.02)

    def late(self, timeout_s: float) -> ChildError:
        """What to raise where it was not ready within this time."""
        return ChildError(
            f"{self.name} was not ready within {timeout_s:g} s; its log, {self.log}:\n{self.tail()}"
        )

    def signal(self, signum: int) -> None:
        """Signal the process alone; nothing where it has ended."""
        if self.running:
            self.process.send_signal(signum)

    def kill_group(self) -> None:
        """SIGKILL to the process and whatever it has started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Children:
    """The children of this process. Leaving the block ends them, the youngest first."""

    def __init__(self) -> None:
        self._children: list[Child] = []
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Children:
        script = Path(__file__).with_name("watchdog.py")
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._children))

    def start(
        self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> Child:
        """Start a program. `env` replaces the whole environment where it is given."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
        self._tell(f"+{process.pid}")
        child = Child(name, process, log)
        self._children.append(child)
        return child

    def check(self) -> None:
        """Raises `ChildError` if any child has ended."""
        for child in self._children:
            child.check()

    def stop(self, grace_s: float = 10.0) -> None:
        """End all children, in the reverse order of their start, and the watchdog."""
        while self._children:
            self.end(self._children[-1], grace_s=grace_s)
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            assert watchdog.stdin is not None
            with contextlib.suppress(OSError):
                watchdog.stdin.close()
            watchdog.wait()

    def end(self, *children: Child, grace_s: float = 10.0) -> None:
        """SIGTERM to these children together; SIGKILL to what is left after `grace_s`."""
        for child in children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        for child in children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill_group()
                child.process.wait(_KILL_WAIT_S)
            child.kill_group()  # helpers of its own that it left behind
            self._tell(f"-{child.pid}")
            self._children.remove(child)

    def _tell(self, line: str) -> None:
        if self._watchdog is None or self._watchdog.stdin is None:
            raise RuntimeError("children can be started inside a `with Children()` block only")
        with contextlib.suppress(BrokenPipeError):
            self._watchdog.stdin.write(f"{line}\n".encode())
            self._watchdog.stdin.flush()
