"""Which characters belong to which kind of script: bodies for classes of regular expressions."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def _ranges(codes: Iterable[int]) -> str:
    """The body of a character class that holds these code points, which come in order."""
    parts: list[str] = []
    start = previous = -2
    for code in (*codes, -2):
        if code != previous + 1:
            if start >= 0:
                parts.append(f"{chr(start)}-{chr(previous)}")
            start = code
        previous = code
    return "".join(parts)


def _of_categories(first_letters: str, *blocks: range) -> str:
    return _ranges(
        code
        for block in blocks
        for code in block
        if unicodedata.category(chr(code))[0] in first_letters
    )


JOINERS = "\u200c\u200d"
"""Zero width non-joiner and joiner: part of the spelling between letters of `JOINING`."""
JOINING = _of_categories(
    "LM", range(0x0600, 0x0860), range(0x08A0, 0x0E00), range(0x0F00, 0x10A0), range(0x1780, 0x18B0)
)
"""Letters and marks of the scripts that use joiners: Arabic, Syriac, those of India, Tibetan,
Burmese, Khmer, Mongolian."""
VIRAMAS = _ranges(
    code
    for block in (range(0x0900, 0x0E00), range(0x1000, 0x1A00))
    for code in block
    if unicodedata.combining(chr(code)) == 9
)
"""What takes a consonant's vowel: behind it a joiner says how the consonant looks, at a word's end
too (the chillus of Malayalam)."""
MARKS = _of_categories(
    "M",
    *(range(0x0300, 0x2100), range(0x3099, 0x309B), range(0xA66F, 0xAC00), range(0xFE20, 0xFE30)),
)
"""Marks that stand on a letter: accents, vowel signs, tone marks."""
HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HIRAGANA = "\u3041-\u3096\u309d-\u309f"
KATAKANA = "\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
UNSPACED = (
    "\u0e01-\u0e3a\u0e40-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aad"
    "\ua9e0-\ua9ff\uaa60-\uaa7f"
)
"""Scripts that are written without spaces between words and aren't Chinese or Japanese: Thai, Lao,
Burmese, Khmer, and those of the Tai languages."""
