"""Threads that compute for long leave the processor to those that answer."""

from __future__ import annotations

import contextlib
import os
import sys
import threading

NICE = 5
"""How much nicer they are than the process: where both want a core, three quarters of it are the
others' (`man 7 sched`)."""
NICEST = 19


def stand_back() -> None:
    """Have the calling thread, and the threads that it begins, stand behind those of the process
    that have not called this. On Linux, where each thread has a priority of its own; elsewhere
    nothing is done.

    Only for threads that compute outside the interpreter: one that waits for a core with the
    interpreter's lock in hand keeps all others waiting.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            mine = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(NICEST, mine + NICE))
