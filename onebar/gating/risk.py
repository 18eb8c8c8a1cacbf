"""Whether a text is about something that a search bar must keep away from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from onebar.errors import OneBarError
from onebar.evidence.scripts import HAN
from onebar.evidence.words import words
from onebar.gating.skeleton import simplified

_HAN = re.compile(f"[{HAN}]")
SHIPPED = Path(__file__).parent / "data" / "risk.tsv"
"""Rules for English and Chinese. What is written in other languages needs another classifier."""


class RiskClassifier(Protocol):
    """Judges texts. Any local model can take the place of the rules."""

    def risk(self, texts: Sequence[str]) -> str | None:
        """The category of what is wrong with some texts taken together; None where nothing is.
        Pure: equal texts, equal answers."""
        ...


class RiskRulesError(OneBarError, ValueError):
    """A line of a file of rules that can't be read."""


class _Phrases:
    """Numbered phrases, found by their first word or their first two Chinese characters."""

    def __init__(self) -> None:
        self.words: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        self.chars: dict[str, list[tuple[str, int]]] = {}

    def add(self, phrase: str, number: int) -> None:
        if _HAN.search(phrase):
            text = _characters(phrase)
            self.chars.setdefault(text[:2], []).append((text, number))
        else:
            keys = tuple(word.key for word in words(phrase))
            self.words.setdefault(keys[0], []).append((keys, number))


class RiskRules:
    """Rules of a file; `data/risk.tsv` says how they are written."""

    def __init__(self, path: Path = SHIPPED) -> None:
        """Raises `RiskRulesError` with the line that can't be read."""
        self._harmless = _Phrases()
        self._phrases = _Phrases()
        self._rules: list[tuple[str, tuple[frozenset[int], ...]]] = []
        self._by_phrase: dict[int, list[int]] = {}
        self._numbers: dict[str, int] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line and not line.startswith("//"):
                try:
                    category, rule = line.split("\t")
                    self._add(category, rule)
                except (ValueError, IndexError):
                    raise RiskRulesError(
                        f"{path}:{number}: expected a category, a tab and phrases, got {line!r}"
                    ) from None

    def _add(self, category: str, rule: str) -> None:
        if category == "except":
            for phrase in rule.split(" | "):
                self._harmless.add(phrase, 0)
            return
        parts = tuple(frozenset(map(self._number, part.split(" | "))) for part in rule.split(" + "))
        for phrase_number in parts[0]:
            self._by_phrase.setdefault(phrase_number, []).append(len(self._rules))
        self._rules.append((category, parts))

    def _number(self, phrase: str) -> int:
        known = self._numbers.get(phrase)
        if known is None:
            known = self._numbers[phrase] = len(self._numbers)
            self._phrases.add(phrase, known)
        return known

    def risk(self, texts: Sequence[str]) -> str | None:
        keys: list[str] = []
        chars = ""
        for text in texts:
            keys += [word.key for word in words(text)]
            keys.append("")
            if not text.isascii() and _HAN.search(text):
                chars += _characters(text) + "\n"
        if not chars and self._phrases.words.keys().isdisjoint(keys):
            return None
        if not _found(self._phrases, keys, chars):
            return None
        keys, chars = _without(self._harmless, keys, chars)
        found = _found(self._phrases, keys, chars)
        broken = {rule for number in found for rule in self._by_phrase.get(number, ())}
        for rule in sorted(broken):
            category, parts = self._rules[rule]
            if not any(part.isdisjoint(found) for part in parts):
                return category
        return None


def _characters(text: str) -> str:
    return simplified(text.replace(" ", "").casefold())


def _found(phrases: _Phrases, keys: Sequence[str], chars: str) -> set[int]:
    found: set[int] = set()
    for at, key in enumerate(keys):
        for phrase, number in phrases.words.get(key, ()):
            if len(phrase) == 1 or tuple(keys[at : at + len(phrase)]) == phrase:
                found.add(number)
    for at in range(len(chars)):
        for text, number in phrases.chars.get(chars[at : at + 2], ()):
            if chars.startswith(text, at):
                found.add(number)
    return found


def _without(phrases: _Phrases, keys: Sequence[str], chars: str) -> tuple[list[str], str]:
    left = list(keys)
    for at, key in enumerate(keys):
        for phrase, _ in phrases.words.get(key, ()):
            if tuple(keys[at : at + len(phrase)]) == phrase:
                left[at : at + len(phrase)] = [""] * len(phrase)
    for at in range(len(chars)):
        for text, _ in phrases.chars.get(chars[at : at + 2], ()):
            if chars.startswith(text, at):
                chars = chars[:at] + "\n" * len(text) + chars[at + len(text) :]
    return left, chars


@lru_cache(maxsize=1)
def shipped_rules() -> RiskRules:
    """The rules that come with the package."""
    return RiskRules()
