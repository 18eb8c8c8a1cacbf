"""Ends the child processes of a parent that died, even by SIGKILL. Run as a script, not imported.

Reads lines from standard input, the other end of which only the parent holds: `+PID` for a child
that leads its own process group, `-PID` for one that has ended. When the parent is gone the pipe
closes, and what is left gets SIGTERM, then SIGKILL.
"""

import os
import signal
import sys
import time

GRACE_S = 5.0


def signal_groups(groups: set[int], signum: int) -> set[int]:
    """Signal the process groups; those that still exist."""
    alive = set()
    for group in groups:
        try:
            os.killpg(group, signum)
            alive.add(group)
        except (ProcessLookupError, PermissionError):
            pass
    return alive


def main() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    groups = signal_groups(groups, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while groups and time.monotonic() < deadline:
        time.sleep(0.05)
        groups = signal_groups(groups, 0)
    signal_groups(groups, signal.SIGKILL)


if __name__ == "__main__":
    main()
