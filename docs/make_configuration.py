"""Writes docs/configuration.md from onebar/settings.py, so that the two can't disagree.

python docs/make_configuration.py            write it
python docs/make_configuration.py --check    status 1 if it is not what would be written
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from pathlib import Path

from onebar.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "onebar" / "settings.py"
PAGE = ROOT / "docs" / "configuration.md"

HEAD = """# Configuration

Every setting is an environment variable. They are read once, when a command starts; nothing reads
them on import. A wrong value ends the command with a message that names the variable; a variable
that is no setting is warned of, with the nearest name that is one.

Each can be read from a file instead, which its variable with `_FILE` behind it names:
`ONEBAR_REDIS_PASSWORD_FILE=/run/secrets/redis`. A line end at the file's end is no part of it.

This page is written from `onebar/settings.py` by `make schemas`; a test keeps it true.
"""
SECTION = re.compile(r"    # (.+)")
FIELD = re.compile(r"    (\w+):")


def sections() -> dict[str, list[str]]:
    """Field names under the comment lines that head them, in the file's order."""
    found: dict[str, list[str]] = {}
    fields: list[str] = []
    for line in SOURCE.read_text().splitlines():
        if heading := SECTION.fullmatch(line):
            fields = found.setdefault(heading[1], [])
        elif (field := FIELD.match(line)) and field[1] in Settings.model_fields:
            fields.append(field[1])
    return found


def descriptions() -> dict[str, str]:
    """The docstring below each field."""
    (body,) = (
        node.body
        for node in ast.parse(SOURCE.read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    found: dict[str, str] = {}
    for field, below in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def default(name: str) -> str:
    """A field's default as one would write it in the environment."""
    value = Settings.model_fields[name].default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value is None or value in ("", ()):
        return "empty"
    return f"`{value}`"


def page() -> str:
    """The whole page."""
    described = descriptions()
    parts = [HEAD]
    for heading, fields in sections().items():
        parts.append(f"\n## {heading}\n\n| variable | default | meaning |\n|---|---|---|\n")
        parts += [
            f"| `ONEBAR_{name.upper()}` | {default(name)} | {described[name].replace('|', '/')} |\n"
            for name in fields
        ]
    return "".join(parts)


def main() -> int:
    if "--check" in sys.argv:
        return 0 if PAGE.read_text() == page() else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
