"""The list of commands as people look for them: by what they are for, each with its whole line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from typer.core import TyperGroup

from onebar.cli.common import warn_of_unknown

SECTIONS = {
    "See it": ("demo", "up"),
    "Run it": ("stream", "generator", "neighbors", "api", "map-topic", "topics"),
    "Look after it": ("status", "doctor", "inspect", "dead-letters", "rebuild"),
    "Say what may be shown": ("rules", "repertoire"),
    "Logs": ("replay", "simulate", "archive"),
    "Learn": (
        *("dataset", "teach", "teach-prompt", "summarize", "train", "evaluate", "embed"),
        "models",
    ),
    "Measure": ("bench", "version"),
}
WORKERS = {"stream", "generator", "neighbors", "api", "map-topic", "archive"}
"""Commands that say in their log, or for themselves, which variables are no setting."""
WHOLE = 1000
"""Longest line of a command that is not cut."""


class Whole(TyperGroup):
    """A group whose commands stand with their whole lines."""

    sections: ClassVar[Mapping[str, Sequence[str]]] = {}
    others = "Commands"

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        found = {
            name: command.get_short_help_str(WHOLE)
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None and not command.hidden
        }
        named = {name for names in self.sections.values() for name in names}
        rest = tuple(name for name in found if name not in named)
        width = max(map(len, found), default=0)
        for heading, names in {**self.sections, self.others: rest}.items():
            rows = [(name.ljust(width), found[name]) for name in names if name in found]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


class Sections(Whole):
    """All commands, under headings; one that stands under none is under the last."""

    sections = SECTIONS
    others = "More"

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command to run. What it is that nothing reads is told before."""
        name, command, rest = super().resolve_command(ctx, args)
        asks = not {"--help", "-h"}.isdisjoint(rest)
        if name not in WORKERS and not asks and not ctx.resilient_parsing:
            warn_of_unknown()
        return name, command, rest
