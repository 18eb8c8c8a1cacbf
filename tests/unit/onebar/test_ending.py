"""A process that was told to end does, whatever hangs in it; and threads that stand back."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from onebar.process.turns import NICE, NICEST, stand_back

HANGS = """
import ctypes, threading
from onebar.process.tasks import end_soon
def stillstand():
    {how}
end_soon(0.5)
threading.Thread(target=stillstand).start()
"""


@pytest.mark.parametrize(
    "how",
    [
        "threading.Event().wait()",
        # With the interpreter's lock in hand: no other line of Python is run any more.
        "ctypes.PyDLL(None).pause()",
    ],
)
def test_what_hangs_is_ended_and_told_of(how: str) -> None:
    command = [sys.executable, "-c", HANGS.format(how=how)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "in stillstand" in done.stderr


def test_what_ends_by_itself_is_left_alone() -> None:
    command = [sys.executable, "-c", "from onebar.process.tasks import end_soon; end_soon(60)"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority")
def test_a_thread_that_stands_back_and_those_that_it_begins_are_nicer() -> None:
    found: list[int] = []

    def note() -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    def work() -> None:
        stand_back()
        note()
        inner = threading.Thread(target=note)
        inner.start()
        inner.join()

    before = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    note()
    nicer = min(NICEST, before + NICE)
    assert found == [nicer, nicer, before]
