"""Patterns that take time linear in what they are looked for in, whatever they say: RE2's. The only
importer of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import re2

from onebar.errors import OneBarError

MAX_PATTERN_CHARS = 512
_MAX_MEM = 1 << 20
"""Bytes that one pattern's automaton may take; one that needs more is refused."""
_SET_MEM = 64 << 20


class PatternError(OneBarError, ValueError):
    """A pattern that is none, or that could not be looked for in linear time."""


def _options(memory: int) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = memory
    return options


class Pattern:
    """One pattern."""

    def __init__(self, text: str, compiled: Any) -> None:
        self.text = text
        self._compiled = compiled

    def found(self, text: str) -> list[str]:
        """Every place where it matches, none of which overlap."""
        return [match.group(0) for match in self._compiled.finditer(text)]

    def without(self, text: str) -> str:
        """The text with a line break for every place where it matches."""
        return str(self._compiled.sub("\n", text))

    def search(self, text: str) -> bool:
        """Whether it matches anywhere."""
        return self._compiled.search(text) is not None


def compile_pattern(text: str) -> Pattern:
    """The pattern. Raises `PatternError` for what RE2 refuses: references back and looking around,
    whose time no bound holds, repetition beyond 1,000, and what takes too much memory."""
    if not text or len(text) > MAX_PATTERN_CHARS:
        raise PatternError(
            f"expected a pattern of 1 to {MAX_PATTERN_CHARS} characters, got {len(text)}"
        )
    try:
        pattern = Pattern(text, re2.compile(text, _options(_MAX_MEM)))
    except re2.error as error:
        said = error.args[0] if error.args else error
        said = said.decode(errors="replace") if isinstance(said, bytes) else said
        raise PatternError(
            f"{said}: patterns are of RE2's syntax, without references back or looking around, "
            f"whose time no bound holds (got {text!r:.80})"
        ) from None
    if pattern.search(""):
        raise PatternError(f"it matches what is empty, and so everything (got {text!r:.80})")
    return pattern


class PatternSet:
    """Many patterns looked for at once."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._set: Any = None
        if texts:
            self._set = re2.Set.SearchSet(_options(_SET_MEM))
            for text in texts:
                self._set.Add(text)
            self._set.Compile()

    def matching(self, text: str) -> list[int]:
        """The places, in the sequence given, of those that match, ascending."""
        if self._set is None:
            return []
        return sorted(self._set.Match(text) or ())
