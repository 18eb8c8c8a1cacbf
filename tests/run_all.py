"""`make test`: every check, and a plain summary at the end.

One after the other, but the two integration suites side by side: they mostly wait, and have servers
of their own.

A failed step does not keep the later ones from running. The servers of the last step are started
by `deploy/real_servers.py`; where their programs are not installed the step is skipped and says
what is missing, but with `CI` set that is a failure.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
SERVERS = ("ONEBAR_KAFKA_BOOTSTRAP", "ONEBAR_REDIS_URL")
MISSING_STATUS = 69
PARALLEL = ("-n", "logical", "--maxprocesses", "4", "--dist", "loadfile")
"""A process a core, each with one thread for its arithmetic: more would wait for each other."""
COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed|deselected|warnings?)\b")
PYTEST_END = re.compile(r"^=* ?((?:\d+ [a-z]+, )*\d+ [a-z]+) in [\d.]+s")
PYTEST_FAILURE = re.compile(r"^(?:FAILED|ERROR) tests/\S.*")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Outcome:
    """What a step came to; `counts` and `failures` are what pytest said, if the step was its."""

    name: str
    seconds: float
    status: int
    said: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def run(
    name: str, command: Sequence[str], environment: Mapping[str, str], mark: str = ""
) -> Outcome:
    """Run one step, showing its output as it comes, each line behind `mark`."""
    print(f"\n--- {name}: {' '.join(command)}", flush=True)
    start = time.monotonic()
    outcome = Outcome(name, 0.0, 0)
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert child.stdout is not None
    for line in child.stdout:
        print(mark + line, end="", flush=True)
        plain = ESCAPES.sub("", line).rstrip()
        if PYTEST_FAILURE.match(plain):
            outcome.failures.append(plain)
        end = PYTEST_END.match(plain)
        if end:
            outcome.said = end[1]
            outcome.counts = {word: int(count) for count, word in COUNT.findall(end[1])}
    outcome.status = child.wait()
    outcome.seconds = time.monotonic() - start
    return outcome


Step = tuple[str, list[str], dict[str, str]]
"""Name, command and environment."""


def steps() -> tuple[list[Step], list[Step]]:
    """The steps that run in order, and those that run side by side after them."""
    bare = {name: value for name, value in os.environ.items() if name not in SERVERS}
    inherited = dict(os.environ)
    python, pytest = str(BIN / "python"), str(BIN / "pytest")
    on_real = [python, "deploy/real_servers.py", "run", "--"]
    integration = [pytest, "tests/integration"]
    tools = ["deploy/real_servers.py", "docs/make_configuration.py", "tests/run_all.py"]
    tools += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*.py"))
    alone = [
        ("ruff check", [str(BIN / "ruff"), "check", "."], bare),
        ("ruff format", [str(BIN / "ruff"), "format", "--check", "."], bare),
        ("mypy --strict", [str(BIN / "mypy")], bare),
        ("mypy --strict, tools", [str(BIN / "mypy"), *tools], bare),
        ("unit tests", [pytest, "tests/unit", *PARALLEL], {**bare, "OMP_NUM_THREADS": "1"}),
    ]
    together = [
        ("integration, embedded servers", integration, bare),
        ("integration, Apache Kafka and Redis", [*on_real, *integration], inherited),
    ]
    return alone, together


def main() -> int:
    ci = os.environ.get("CI", "").lower() in ("1", "true", "yes")
    alone, together = steps()
    outcomes = [run(*step) for step in alone]
    with ThreadPoolExecutor(len(together)) as pool:
        marked = zip(together, ("[embedded] ", "[real] "), strict=True)
        running = [pool.submit(run, *step, mark) for step, mark in marked]
        outcomes += [future.result() for future in running]

    failed = False
    totals = dict.fromkeys(("passed", "failed", "skipped"), 0)
    print("\n=== make test")
    for outcome in outcomes:
        missing = outcome.status == MISSING_STATUS
        word = "ok" if outcome.status == 0 else "SKIPPED" if missing and not ci else "FAILED"
        failed |= word == "FAILED"
        said = outcome.said or ("its servers are not installed, see above" if missing else "")
        print(f"{word:8} {outcome.name:36} {outcome.seconds:6.0f} s  {said}")
        for failure in outcome.failures:
            print(f"         {failure}")
        for name, count in outcome.counts.items():
            name = "failed" if name.startswith("error") else name
            if name in totals:
                totals[name] += count
    print("\n" + ", ".join(f"{count} {name}" for name, count in totals.items()), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
