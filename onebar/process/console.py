"""What people see on stderr: progress bars on a terminal, plain lines where there is none."""

from __future__ import annotations

import json
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EVERY_S = 5.0
"""Between two lines of progress where there is no terminal."""

Update = Callable[[float, str], None]
"""Takes the fraction done (0 to 1) and a short text."""


def say(text: str) -> None:
    """One line on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(title: str) -> Iterator[Update]:
    """Show how far something is: a bar on a terminal, else a line every few seconds."""
    if sys.stderr.isatty():
        with _bar(title) as update:
            yield update
        return
    last = time.monotonic()

    def line(fraction: float, text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_S:
            last = time.monotonic()
            say(f"{title}: {fraction:.0%} {text}".rstrip())

    yield line


@contextmanager
def _bar(title: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%  {task.fields[text]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0, text="")
        yield lambda fraction, text: bar.update(task, completed=fraction, text=text)


class Phases:
    """Phases of one job on a terminal: a spinner while an engine works, a bar once it is known how
    much there is. Nothing where there is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)

    def __call__(self, phase: str, done: int = 0, total: int = 0) -> None:
        self._bar.update(self._task, description=phase, completed=done, total=total or None)

    def __enter__(self) -> Phases:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def printable(text: str) -> str:
    """The text without anything that a terminal would obey: control characters, and those that
    turn the direction of writing, stand as JSON's escapes."""
    return "".join(map(_safe, text))


_OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"
"""Between letters of many scripts."""


def _safe(character: str) -> str:
    if unicodedata.category(character) not in _OBEYED or character in _JOINERS:
        return character
    return json.dumps(character)[1:-1]
