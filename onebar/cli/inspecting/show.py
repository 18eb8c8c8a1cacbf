"""What is found, as people read it: headings, facts and tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from onebar.process.console import printable


def moment(ts: float | None) -> str:
    """UTC, to the second."""
    if ts is None:
        return ""
    try:
        return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{ts:g}"


def ago(seconds: float) -> str:
    """How long something is, in its largest unit."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


class Page:
    """Writes to stdout. Nothing that a terminal would obey gets there from what was found."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)

    def title(self, text: str) -> None:
        self._write(text, "bold")

    def heading(self, text: str) -> None:
        self._console.print()
        self._write(text, "bold cyan")

    def line(self, text: str) -> None:
        self._write(text, "")

    def warning(self, text: str) -> None:
        self._write(text, "yellow")

    def facts(self, rows: Iterable[tuple[str, object]]) -> None:
        """Names with what they are; what is empty is left out."""
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in rows:
            if value not in (None, "", (), []):
                table.add_row(name, self._text(value))
        if table.row_count:
            self._console.print(table)

    def table(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[object]],
        *,
        numbers: Iterable[str] = (),
        dim: Sequence[bool] = (),
    ) -> None:
        """One line of text under each column; `numbers` stand to the right, rows that are `dim` are
        what did not come to be."""
        from rich import box
        from rich.table import Table

        right = set(numbers)
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
        for name in columns:
            table.add_column(name, justify="right" if name in right else "left", overflow="fold")
        for place, row in enumerate(rows):
            faint = place < len(dim) and dim[place]
            table.add_row(*map(self._text, row), style="dim" if faint else None)
        self._console.print(table)

    def _write(self, text: str, style: str) -> None:
        from rich.text import Text

        self._console.print(Text(printable(text), style=style))

    @staticmethod
    def _text(value: object) -> Any:
        from rich.text import Text

        if value is None:
            return Text("")
        if isinstance(value, float):
            return Text(f"{value:.3f}".rstrip("0").rstrip("."))
        return Text(printable(str(value)))
