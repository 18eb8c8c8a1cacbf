"""`make test`: every check, and a plain summary at the end.

One after the other, but the two integration suites side by side: they mostly wait, and have servers
of their own.

With `CI` set the unit tests run a second time, on the Python farthest from this one among the
tested versions that are here (`deploy/setup.sh --list`), without those that run whole programs; the
newer of the two also counts which lines of the packages they reach. Where there is no other, the
summary says so.

A failed step does not keep the later ones from running. A few tests of a step that failed run once
more at the end, with nothing beside them: what passes then depends on how busy the machine is.
Its step counts as passed, and the summary calls the test unsteady: it has to be mended.

The servers of the last step are started by `deploy/real_servers.py`; where their programs are not
installed the step is skipped and says what is missing, but with `CI` set that is a failure.
"""

from __future__ import annotations

import json
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
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
MISSING_STATUS = 69
FEW = 3
"""So many failures may be due to a busy machine; more are not tried again."""
PARALLEL = ("-n", "logical", "--maxprocesses", "4", "--dist", "loadfile")
"""A process a core, each with one thread for its arithmetic: more would wait for each other."""
SLOW_S = 420
"""Where the unit tests take longer than this on one Python, the machine has no time for another."""
COVERAGE = ROOT / ".cache" / "coverage.json"
COUNT = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed|deselected|warnings?)\b")
PYTEST_END = re.compile(r"^=* ?((?:\d+ [a-z]+, )*\d+ [a-z]+) in [\d.]+s")
PYTEST_FAILURE = re.compile(r"^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$")
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Outcome:
    """What a step came to; `counts` and `failures` are what pytest said, if the step was its.

    `failures` has pytest's line of each test that failed, by the test's name; those in `unsteady`
    passed when they ran again, alone.
    """

    name: str
    seconds: float
    status: int
    said: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    unsteady: list[str] = field(default_factory=list)


def run(
    name: str, command: Sequence[str], environment: Mapping[str, str], mark: str = ""
) -> Outcome:
    """Run one step, showing its output as it comes, each line behind `mark`.

    Bytecode is kept, whatever the environment says: hundreds of children import torch or
    transformers, and to compile them anew takes 2 and 10 s of a core each time.
    """
    kept = {name: value for name, value in environment.items() if name != NO_BYTECODE}
    print(f"\n--- {name}: {' '.join(command)}", flush=True)
    start = time.monotonic()
    outcome = Outcome(name, 0.0, 0)
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env=kept,
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
        failure = PYTEST_FAILURE.match(plain)
        if failure:
            outcome.failures[failure[1]] = plain
        end = PYTEST_END.match(plain)
        if end:
            outcome.said = end[1]
            outcome.counts = {word: int(count) for count, word in COUNT.findall(end[1])}
    outcome.status = child.wait()
    outcome.seconds = time.monotonic() - start
    return outcome


Step = tuple[str, list[str], dict[str, str]]
"""Name, command and environment."""


@dataclass(frozen=True)
class Python:
    """An interpreter of a tested version."""

    version: tuple[int, int]
    program: str

    @property
    def name(self) -> str:
        return ".".join(map(str, self.version))


HERE = Python(sys.version_info[:2], sys.executable)


def farthest() -> Python | None:
    """The Python to test on besides this one: the newest that is here, else the oldest."""
    listed = subprocess.run(
        ["deploy/setup.sh", "--list"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = []
    for line in listed.stdout.splitlines():
        version, program = line.split(maxsplit=1)
        major, minor = version.split(".")
        found.append(Python((int(major), int(minor)), program))
    others = [python for python in found if python.version != HERE.version]
    if not others:
        return None
    newest = max(others, key=lambda python: python.version)
    return newest if newest.version > HERE.version else min(others, key=lambda p: p.version)


def unit_tests(python: Python, bin_: Path, environment: Mapping[str, str], covered: bool) -> Step:
    """The unit tests on one Python, programs only on this one; `covered` counts the lines that they
    reach."""
    command = [str(bin_ / "pytest"), "tests/unit", *PARALLEL]
    if python is not HERE:
        command += ["-m", "not program"]
    environment = {**environment, "OMP_NUM_THREADS": "1"}
    if covered:
        command += ["--cov", f"--cov-report=json:{COVERAGE.relative_to(ROOT)}"]
        if python.version >= (3, 12):
            environment["COVERAGE_CORE"] = "sysmon"  # costs hardly anything
    return f"unit tests, Python {python.name}", command, environment


def without_servers() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in SERVERS}


def checks() -> list[Step]:
    """What reads the code and does not run it."""
    bare = without_servers()
    tools = ["deploy/real_servers.py", "tests/run_all.py", "tests/screenshots.py"]
    for folder in ("docs", "examples"):
        tools += sorted(str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*.py"))
    return [
        ("ruff check", [str(BIN / "ruff"), "check", "."], bare),
        ("ruff format", [str(BIN / "ruff"), "format", "--check", "."], bare),
        ("mypy --strict", [str(BIN / "mypy")], bare),
        ("mypy --strict, tools", [str(BIN / "mypy"), *tools], bare),
    ]


def integration_tests() -> list[Step]:
    """On both kinds of servers; each has its own, so they can run side by side."""
    suite = [str(BIN / "pytest"), "tests/integration"]
    on_real = [sys.executable, "deploy/real_servers.py", "run", "--", *suite]
    return [
        ("integration, embedded servers", suite, without_servers()),
        ("integration, Apache Kafka and Redis", on_real, dict(os.environ)),
    ]


def run_again(outcome: Outcome, step: Step) -> None:
    """Run the few tests of a step that failed once more, now that nothing runs beside them."""
    if outcome.status != 1 or not 1 <= len(outcome.failures) <= FEW:
        return
    name, command, environment = step
    suite = next(place for place, word in enumerate(command) if word.startswith("tests/"))
    only = [*command[:suite], *outcome.failures]  # by themselves: nothing of the step's options
    second = run(f"{name}, again", only, environment)
    outcome.seconds += second.seconds
    outcome.unsteady = [test for test in outcome.failures if test not in second.failures]
    if second.status == 0 and second.counts.get("passed", 0) >= len(outcome.failures):
        outcome.status = 0
        outcome.counts["passed"] = outcome.counts.get("passed", 0) + outcome.counts.pop("failed", 0)


def run_everything(other: Python | None, ci: bool) -> list[Outcome]:
    bare = without_servers()
    with ThreadPoolExecutor(2) as pool:
        installing = None
        if other:
            # Downloads and copies for a minute or two: meanwhile the other checks run.
            environment = {**bare, "VENV": f".venv-{other.name}", "PYTHON": other.program}
            step = f"install for Python {other.name}", ["deploy/setup.sh", "dev"], environment
            installing = pool.submit(run, *step, "[install] ")
        outcomes = [run(*step) for step in checks()]
        tests: list[tuple[Outcome, Step]] = []
        last = max(HERE, other or HERE, key=lambda python: python.version)
        step = unit_tests(HERE, BIN, bare, covered=ci and last is HERE)
        tests.append((run(*step), step))
        if other and installing:
            outcomes.append(installing.result())
            if tests[0][0].seconds > SLOW_S:
                print(f"\n--- {tests[0][0].name} took so long that Python {other.name} is left out")
            elif outcomes[-1].status == 0:
                bin_ = ROOT / f".venv-{other.name}" / "bin"
                step = unit_tests(other, bin_, bare, covered=last is other)
                tests.append((run(*step), step))
        steps = integration_tests()
        marked = zip(steps, ("[embedded] ", "[real] "), strict=True)
        running = [pool.submit(run, *step, mark) for step, mark in marked]
        tests += [(future.result(), step) for future, step in zip(running, steps, strict=True)]
    for outcome, step in tests:
        run_again(outcome, step)
    return outcomes + [outcome for outcome, _ in tests]


def covered_lines(report: Path) -> list[str]:
    """How much of each package the unit tests reach, and of all: lines for the summary."""
    reached: dict[str, list[int]] = {}
    for path, found in json.loads(report.read_text())["files"].items():
        lines = found["summary"]
        for name in ("/".join(Path(path).parts[:-1][:2]), "all"):
            sums = reached.setdefault(name, [0, 0])
            sums[0] += lines["covered_lines"]
            sums[1] += lines["num_statements"]
    return [
        f"{100 * covered / count:5.0f} % of {count:6,} lines  {name}"
        for name, (covered, count) in sorted(reached.items(), key=lambda item: item[0] == "all")
        if count
    ]


def main() -> int:
    ci = os.environ.get("CI", "").lower() in ("1", "true", "yes")
    other = farthest() if ci else None
    COVERAGE.unlink(missing_ok=True)
    COVERAGE.parent.mkdir(exist_ok=True)
    outcomes = run_everything(other, ci)

    failed = False
    totals = dict.fromkeys(("passed", "failed", "skipped"), 0)
    if COVERAGE.exists():
        print("\n=== what the unit tests reach (integration tests are not counted)")
        print("\n".join(covered_lines(COVERAGE)))
    print("\n=== make test")
    for outcome in outcomes:
        missing = outcome.status == MISSING_STATUS
        word = "ok" if outcome.status == 0 else "SKIPPED" if missing and not ci else "FAILED"
        failed |= word == "FAILED"
        said = outcome.said or ("its servers are not installed, see above" if missing else "")
        print(f"{word:8} {outcome.name:36} {outcome.seconds:6.0f} s  {said}")
        for test, failure in outcome.failures.items():
            unsteady = "UNSTEADY, passed alone: " if test in outcome.unsteady else ""
            print(f"         {unsteady}{failure}")
        for name, count in outcome.counts.items():
            name = "failed" if name.startswith("error") else name
            if name in totals:
                totals[name] += count
    if ci and other is None:
        print(f"         no other tested Python is here: unit tests ran on {HERE.name} alone")
    print("\n" + ", ".join(f"{count} {name}" for name, count in totals.items()), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
