"""Writes docs/commands.md from the command line itself, so that the two can't disagree.

python docs/make_commands.py            write it
python docs/make_commands.py --check    status 1 if it is not what would be written
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from onebar.cli.main import app

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "commands.md"

HEAD = """# Commands

Every command, what it does, how to call it, and the page that says more. `--help` behind any of
them lists its options. Settings are `ONEBAR_*` variables ([configuration.md](configuration.md));
most commands can print JSON (`--json`); one that was called wrongly ends with status 2, one that
failed with 1.

This page is written from the commands' own help by `make schemas`; a test keeps it true.
"""


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with the words that name it."""
    if hasattr(command, "commands"):
        for name, inner in command.commands.items():
            yield from walk(inner, (*words, name))
    else:
        yield words, command


def paragraph(words: tuple[str, ...], command: Any) -> str:
    """What the help says first, the pages that it names as links, and its examples."""
    said = command.help or ""
    first = " ".join(said.split("\n\n")[0].split())
    pages = dict.fromkeys(re.findall(r"\bdocs/([a-z-]+\.md)", said))
    links = ", ".join(f"[{name}]({name})" for name in pages if f"docs/{name}" not in first)
    first = re.sub(r"\bdocs/([a-z-]+\.md)", r"[\1](\1)", first)
    examples = [
        line.strip().removeprefix("Example: ")
        for line in said.splitlines()
        if line.strip().startswith("Example: ")
    ]
    text = first + (f" More: {links}." if links else "")
    return "\n".join([f"\n## onebar {' '.join(words)}\n", text, "\n```sh", *examples, "```\n"])


def page() -> str:
    """The whole page."""
    commands = walk(typer.main.get_command(app))
    return HEAD + "".join(paragraph(words, command) for words, command in commands)


def main() -> int:
    if "--check" in sys.argv:
        return 0 if PAGE.read_text() == page() else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
