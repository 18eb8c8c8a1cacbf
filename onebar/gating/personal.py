"""Whether a query tells who somebody is or how to reach them; by a data file of patterns."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from onebar.errors import OneBarError
from onebar.gating.linear import Pattern, PatternError, PatternSet, compile_pattern

SHIPPED = Path(__file__).parent / "data" / "personal.tsv"
_MAY_HOLD = re.compile(
    r"[\d@.:/：]|[(\[]at[)\]]| dot |微 ?信|wechat|vx|v信|qq|telegram|whatsapp|号"
)
"""What every pattern of the file needs at least: most queries have none of it."""


class PersonalPatternsError(OneBarError, ValueError):
    """A line of a file of patterns that can't be read."""


def luhn(digits: str) -> bool:
    """Whether the check digit of a card's number is right."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (1 + place % 2)
        total += number - 9 * (number > 9)
    return len(digits) >= 13 and total % 10 == 0 and len(set(digits)) > 1


def cn_id(digits: str) -> bool:
    """Whether 17 digits and the check character of a Chinese identity number belong together."""
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(d) * w for d, w in zip(digits[:17], weights, strict=True))
    return len(digits) == 18 and "10x98765432"[total % 11] == digits[17]


def iban(text: str) -> bool:
    """Whether the check digits of an account's number are right."""
    turned = text[4:] + text[:4]
    return 15 <= len(text) <= 34 and int("".join(str(int(c, 36)) for c in turned)) % 97 == 1


CHECKS: Mapping[str, Callable[[str], bool]] = {"luhn": luhn, "cn_id": cn_id, "iban": iban}
_NOT_COUNTED = re.compile(r"[ .-]")


class PersonalPatterns:
    """The patterns of a file; `data/personal.tsv` says how they are written."""

    def __init__(self, path: Path = SHIPPED) -> None:
        """Raises `PersonalPatternsError` with the line that can't be read."""
        self._kinds: list[tuple[str, Pattern, Callable[[str], bool] | None]] = []
        self._harmless: list[Pattern] = []
        texts: list[str] = []
        content = path.read_text(encoding="utf-8")
        for number, line in enumerate(content.splitlines(), 1):
            if not line or line.startswith("//"):
                continue
            parts = line.split("\t")
            check = CHECKS.get(parts[2]) if len(parts) == 3 else None
            try:
                if len(parts) not in (2, 3) or (len(parts) == 3 and check is None):
                    raise PatternError("expected a kind, a tab and a pattern, and maybe a check")
                pattern = compile_pattern(parts[1])
            except PatternError as error:
                raise PersonalPatternsError(f"{path}:{number}: {error}") from None
            if parts[0] == "except":
                self._harmless.append(pattern)
                continue
            self._kinds.append((parts[0], pattern, check))
            texts.append(parts[1])
        self._set = PatternSet(texts)
        self.source = content
        """What they were read from: another text, other verdicts."""

    def kind(self, query: str) -> str | None:
        """What a normalised query holds of the kind, None where nothing."""
        if _MAY_HOLD.search(query) is None:
            return None
        if not (found := self._set.matching(query)):
            return None
        left = query
        for harmless in self._harmless:
            left = harmless.without(left)
        for number in found if left == query else self._set.matching(left):
            kind, pattern, check = self._kinds[number]
            if check is None or _passes(check, pattern.found(left)):
                return kind
        return None


def _passes(check: Callable[[str], bool], found: Sequence[str]) -> bool:
    return any(check(_NOT_COUNTED.sub("", text)) for text in found)


@lru_cache(maxsize=1)
def shipped_patterns() -> PersonalPatterns:
    """The patterns that come with the package."""
    return PersonalPatterns()
