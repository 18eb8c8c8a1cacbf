"""The local stack: up, watched, and gone without a trace, however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Stack, eventually, eventually_sync, onebar

from onebar.stack.processes import Child, ChildError, Children
from onebar.stack.servers import start_broker, start_valkey

pytestmark = pytest.mark.integration

SLEEPER = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); time.sleep(600)",
]


def alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def started(child: Child) -> bool:
    return b"ready" in child.log.read_bytes()


def test_children_end_with_the_block_also_stubborn_ones(tmp_path: Path) -> None:
    with Children() as children:
        made = [
            children.start(name, command, tmp_path / f"{name}.log")
            for name, command in (("sleeper", SLEEPER), ("stubborn", STUBBORN))
        ]
        for child in made:
            child.wait_until(lambda child=child: started(child), 10)  # type: ignore[misc]
        children.stop(grace_s=0.5)
    assert not any(alive(child.pid) for child in made)


def test_a_child_that_dies_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('so long'); raise SystemExit(3)"]
    with Children() as children:
        child = children.start("brief", command, tmp_path / "brief.log")
        with pytest.raises(ChildError, match=r"brief ended with status 3(.|\n)*so long"):
            child.wait_until(lambda: False, 10)
        with pytest.raises(ChildError):
            children.check()


def test_a_child_that_is_slow_is_named(tmp_path: Path) -> None:
    with Children() as children:
        child = children.start("sleeper", SLEEPER, tmp_path / "sleeper.log")
        with pytest.raises(ChildError, match="sleeper was not ready within 0"):
            child.wait_until(lambda: False, 0.1)


def test_children_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from onebar.stack.processes import Children\n"
        f"with Children() as children:\n"
        f"    for name, command in (('a', {SLEEPER!r}), ('b', {STUBBORN!r})):\n"
        f"        log = Path({str(tmp_path)!r}) / (name + '.log')\n"
        "        child = children.start(name, command, log)\n"
        "        child.wait_until(lambda: b'ready' in log.read_bytes(), 10)\n"
        "        print(child.pid, flush=True)\n"
        "    print('all', flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(parent.stdout.readline()) for _ in range(2)]
    assert parent.stdout.readline() == "all\n"
    assert all(map(alive, pids))
    parent.kill()
    parent.wait()
    eventually_sync(lambda: not any(map(alive, pids)), 20)


def test_embedded_servers_find_ports_of_their_own(tmp_path: Path) -> None:
    with Children() as children:
        addresses = []
        for number in range(2):
            directory = tmp_path / str(number)
            directory.mkdir()
            addresses.append(start_broker(children, directory))
            addresses.append(start_valkey(children, directory).split("/")[2])
        assert len(set(addresses)) == 4
        for address in addresses:
            host, port = address.split(":")
            socket.create_connection((host, int(port)), timeout=2).close()
        children.check()


class Watched(Stack):
    """`onebar up`, and its children."""

    def descendants(self) -> dict[str, int]:
        """The pids of workers and servers, which are its children, by their last argument."""
        listed = subprocess.run(
            ["ps", "-ww", "-e", "-o", "pid=,ppid=,args="],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found = {}
        for line in listed.splitlines():
            pid, parent, arguments = line.split(None, 2)
            if int(parent) == self.process.pid and "watchdog" not in arguments:
                found[arguments.split()[-1] + pid] = int(pid)
        return found


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_up_serves_until_told_and_leaves_nothing(stack: Watched, signum: int) -> None:
    await eventually(stack.up, 90, what="onebar up")
    body = await asyncio.to_thread(lambda: urllib.request.urlopen(stack.url + "/readyz").read())
    assert b'"ready":true' in body.replace(b" ", b"")
    doctor = await asyncio.to_thread(onebar, "doctor", "--api", stack.url, env=stack.exports)
    assert doctor.returncode == 0, doctor.stdout
    for name in ("kafka", "topics", "redis", "checkpoint", "api"):
        assert f"ok   {name}" in doctor.stdout
    told = await asyncio.to_thread(onebar, "status", "--api", stack.url, env=stack.exports)
    assert told.returncode == 0, told.stdout + told.stderr
    status = json.loads(told.stdout)
    assert [group["name"] for group in status["groups"]] == ["stream", "generator"]
    assert status["api"]["ready"]
    assert status["lost"] is None

    children = stack.descendants()
    assert len(children) == 5
    stack.process.send_signal(signum)
    assert await asyncio.to_thread(stack.process.wait, 20) == 0, stack.err.read_text()
    assert not [name for name, pid in children.items() if alive(pid)]


async def test_up_killed_leaves_nothing(stack: Watched) -> None:
    await eventually(stack.up, 90, what="onebar up")
    children = stack.descendants()
    assert len(children) == 5
    stack.process.kill()
    stack.process.wait()
    await eventually(
        lambda: not [name for name, pid in children.items() if alive(pid)], 20, what="the end"
    )


async def test_a_worker_that_dies_ends_the_stack_with_its_last_words(stack: Watched) -> None:
    await eventually(stack.up, 90, what="onebar up")
    children = stack.descendants()
    [stream] = [pid for name, pid in children.items() if name.startswith("stream")]
    os.kill(stream, signal.SIGKILL)
    assert await asyncio.to_thread(stack.process.wait, 20) == 1
    said = stack.err.read_text()
    assert "onebar: stream ended with SIGKILL; its log" in said
    assert "stream_worker_started" in said
    assert "Traceback" not in said
    assert not [name for name, pid in children.items() if alive(pid)]
