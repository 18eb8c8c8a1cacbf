"""The pages of the documents, their code blocks, and the commands in them.

Every block of `sh`, `bash`, `console` or `python` is run by a test, unless the line above it says
why not:

    <!-- not run: needs Docker -->
"""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    *(".", "docs", "docs/decisions", "examples", ".github", ".github/ISSUE_TEMPLATE"),
    "clients/typescript",
)
PAGES = sorted(page for folder in FOLDERS for page in (ROOT / folder).glob("*.md"))
SHELL = ("sh", "bash", "console")

_BLOCK = re.compile(
    r"^(?:(?P<mark> *<!--[^\n]*-->)\n)?"
    r"(?P<dent> *)```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=dent)```$",
    re.MULTILINE | re.DOTALL,
)
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_INLINE = re.compile(r"`((?:onebar|make|python) [^`]+)`")
_ASSIGNMENT = re.compile(r"^[A-Za-z_]+=\S*$")
_PUNCTUATION = frozenset("();<>|&")
_BEFORE_A_COMMAND = ("--", "--no-python")
"""Words of programs that start another: `kubectl exec X -- onebar doctor`."""


class Block(Struct, frozen=True):
    """A fenced block. `line`: of its first line of text; `not_run`: why no test runs it."""

    page: Path
    line: int
    language: str
    text: str
    not_run: str | None


def name(path: Path) -> str:
    """A page as its readers know it."""
    return path.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        mark = match["mark"]
        why = _NOT_RUN.fullmatch(mark.strip()) if mark else None
        line = text.count("\n", 0, match.start("text")) + 1
        body = textwrap.dedent(match["text"])
        found.append(Block(page, line, match["language"], body, why[1] if why else None))
    return found


def inline(page: Path) -> list[str]:
    """Commands in the middle of a sentence: `onebar models list`."""
    return [" ".join(words.split()) for words in _INLINE.findall(page.read_text(encoding="utf-8"))]


def commands(script: str) -> Iterator[list[str]]:
    """Every simple command of a script, as words, without the variables set for it."""
    for words in _split(script):
        while words and _ASSIGNMENT.match(words[0]):
            words.pop(0)
        for at in range(1, len(words)):
            inside = words[:2] == ["docker", "compose"] and words[at] == "onebar"
            if inside or words[at - 1] in _BEFORE_A_COMMAND:
                yield words[:at]
                words = words[at:]
                break
        if words:
            yield [words[0].removeprefix(".venv/bin/"), *words[1:]]


def prompted(block: Block) -> list[tuple[str, str]]:
    """A `console` block as its commands, each with what it prints: `$ onebar rules list`, …"""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]
    return [(command, out.strip("\n")) for command, _, out in (p.partition("\n") for p in parts)]


def _split(script: str) -> Iterator[list[str]]:
    """Words between newlines and the shell's own signs; a quote may hold newlines."""
    waiting = ""
    for line in script.replace("\\\n", " ").splitlines():
        waiting += line.removeprefix("$ ")
        lexer = shlex.shlex(waiting, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            tokens = list(lexer)
        except ValueError:  # an open quote
            waiting += "\n"
            continue
        waiting = ""
        words: list[str] = []
        redirected = False
        for token in tokens:
            if redirected or set(token) <= {">", "<"}:  # and the file behind it
                redirected = not redirected
            elif set(token) <= _PUNCTUATION:
                yield words
                words = []
            else:
                words.append(token)
        yield words
    if waiting:
        raise ValueError(f"a quote is left open: {json.dumps(waiting[:80])}")
