"""What a mapping makes of a log, shown before anything is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from onebar.cli.common import print_json
from onebar.errors import UsageError
from onebar.process.console import printable, say

if TYPE_CHECKING:
    from stream.events import Event
    from stream.mapping.log import MappedLog, Preview

SHOWN = 12
"""Events and errors that a preview shows."""


def open_mapped(
    logs: Sequence[Path], mapping: str, as_json: bool, show: bool
) -> Sequence[MappedLog]:
    """The logs, read by the mapping and looked at. With `show` what was found is printed, else only
    what is odd is told. Raises `UsageError` where not one of the first rows is an event."""
    from stream.mapping.log import MappedLog, preview
    from stream.mapping.mapping import open_mapping

    if mapping == "list":
        list_mappings()
    found = [MappedLog(path, open_mapping(mapping)) for path in logs]
    told: list[dict[str, Any]] = []
    for log in found:
        if log.once:
            if show:
                raise UsageError(
                    f"--preview reads {log.path} before it is sent; a pipe is read once"
                )
            continue
        seen = preview(log)
        if show and as_json:
            told.append(preview_json(seen, log=str(log.path), mapping=log.mapping.name))
        elif show:
            print_preview(seen, str(log.path), log.mapping.name)
        if not seen.events and not show:
            why = "".join(f": {hint}" for hint in seen.hints[:1])
            if seen.errors and not why:
                why = f": {seen.errors[0][1]} (row {seen.errors[0][0]:,})"
            raise UsageError(
                f"none of the first {seen.rows:,} rows of {log.path} is an event by the mapping "
                f"{log.mapping.name!r}{why}. Nothing was sent; --preview shows what it makes of "
                "them"
            )
        if not show and (seen.unmapped or seen.errors):
            say(
                f"of the first {seen.rows:,} rows of {log.path}, {seen.unmapped:,} are of no event "
                f"and {len(seen.errors):,} can't be made one (--preview shows which)"
            )
    if told:
        print_json(told[0] if len(told) == 1 else told)
    return found


def list_mappings() -> NoReturn:
    """Print those that come with OneBar, and end."""
    from stream.mapping.mapping import open_mapping, ready_mappings

    for name in ready_mappings():
        known = open_mapping(name)
        print(f"{name}\t{known.name}. {known.note}")
    raise typer.Exit


def _counts(seen: Preview) -> dict[str, int]:
    return dict(Counter(event.type for event in seen.events).most_common())


def preview_json(seen: Preview, row: str = "row", **named: str) -> dict[str, Any]:
    """A preview for programs; `row` is what a row is called, `named` where it is from."""
    return {
        **named,
        "rows": seen.rows,
        "unmapped": seen.unmapped,
        "events": _counts(seen),
        "errors": [{row: where, "error": error} for where, error in seen.errors],
        "hints": list(seen.hints),
        "first": [_fields(event) for event in seen.events[:SHOWN]],
    }


def _fields(event: Event) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = msgspec.to_builtins(event)
    return {name: value for name, value in fields.items() if value not in ("", False, None)}


def print_preview(seen: Preview, source: str, mapping: str, row: str = "row") -> None:
    """A preview for people."""
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    counts = ", ".join(f"{count:,} {kind}" for kind, count in _counts(seen).items()) or "no events"
    console.print(
        Text(
            f"{source} by {mapping}: of the first {seen.rows:,} {row}s {counts}; "
            f"{seen.unmapped:,} are of no event, {len(seen.errors):,} can't be made one"
        )
    )
    table = Table("type", "when (UTC)", "user", "video", "what")
    # A few of each kind, so that none is hidden by another.
    kinds = list(_counts(seen))
    each = max(1, SHOWN // max(1, len(kinds)))
    for kind in kinds:
        for event in [event for event in seen.events if event.type == kind][:each]:
            fields = _fields(event)
            when = datetime.fromtimestamp(event.ts, UTC).strftime("%Y-%m-%d %H:%M:%S")
            known = ("type", "event_id", "ts", "user_id", "video_id")
            rest = ", ".join(f"{n}={v}" for n, v in fields.items() if n not in known)
            cells = (kind, when, fields.get("user_id", ""), fields.get("video_id", ""), rest[:120])
            table.add_row(*(Text(printable(str(cell))) for cell in cells))
    for hint in seen.hints:
        console.print(Text(printable(f"hint: {hint}")))
    if seen.events:
        console.print(table)
    for where, error in seen.errors[:SHOWN]:
        number = f"{where:,}" if isinstance(where, int) else where
        console.print(Text(printable(f"{row} {number}: {error}"[:300])))
    if len(seen.errors) > SHOWN:
        console.print(f"... and {len(seen.errors) - SHOWN:,} more; --json names each")
