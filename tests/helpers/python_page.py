"""The code blocks of docs/python.md, in the order of the page."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python.md"
SERVER = "## A running OneBar"
"""From here on the page speaks to the API."""
_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def parts() -> tuple[str, str]:
    """The page as two programs: the library, and the client. Lines keep their numbers."""
    page = PAGE.read_text(encoding="utf-8")
    start = page.index(SERVER)
    library = [match for match in _BLOCK.finditer(page) if match.start() < start]
    client = [match for match in _BLOCK.finditer(page) if match.start() > start]
    return _program(page, library), _program(page, client)


def _program(page: str, blocks: list[re.Match[str]]) -> str:
    """The blocks, each on the lines where the page has it, so that a traceback says where."""
    lines: list[str] = []
    for block in blocks:
        lines += [""] * (page.count("\n", 0, block.start(1)) - len(lines))
        lines += block[1].splitlines()
    return "\n".join(lines) + "\n"
