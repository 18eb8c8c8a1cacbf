"""What a query reads like, however it is spelt: for holding back alone, never shown.

Who wants to get a blocked query past the rules writes it with letters of another alphabet, accents,
digits of another script, or something between the letters. Traditional characters are not turned
into simplified ones: a rule about both needs both.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_LOOKS_LIKE = str.maketrans(
    "аесорхуікѕјһԁԛԝвмнтᴀгαεικνορτυχγωι",
    "aecopxyiksjhdqwbmhtaraeikvoptuxywi",
)
"""Letters of Cyrillic and Greek that read as Latin ones."""
_LATIN = re.compile(r"[a-z]")
_HAN_DIGITS = str.maketrans("〇零一二三四五六七八九", "00123456789")
_HAN_NUMBER = re.compile("[〇零一二三四五六七八九]{7,}")
_SPELT = re.compile(r"(?<!\w)\w(?:[\s.*_-]+\w(?!\w)){2,}")
"""Single letters or digits with something between them."""
_AROUND = re.compile(r"\s*([.@/:])\s*")
_TOKEN = re.compile(r"[^\W_]+")
_ENDS = re.compile(r"(?<=[a-z0-9])。(?=[a-z])")


@lru_cache(maxsize=16384)
def skeleton(query: str) -> str:
    """A normalised query as it reads: letters of other alphabets among Latin ones, accents, digits
    of other scripts, what stands between single letters, and spaces around . @ / : folded."""
    text = "".join(
        char if not char.isdigit() or char.isascii() else str(unicodedata.digit(char))
        for char in unicodedata.normalize("NFKD", query).casefold()
        if not unicodedata.combining(char)
    )
    text = unicodedata.normalize("NFC", text)
    text = " ".join(
        word.translate(_LOOKS_LIKE) if _LATIN.search(word) else word for word in text.split()
    )
    text = _HAN_NUMBER.sub(lambda found: found[0].translate(_HAN_DIGITS), text)
    text = _ENDS.sub(".", text)
    text = _SPELT.sub(lambda found: "".join(_TOKEN.findall(found[0])), text)
    return _AROUND.sub(r"\1", text)


def words_of(text: str) -> str:
    """Its letters and digits, with a space where anything else is."""
    return " ".join(_TOKEN.findall(text))


def squeezed(text: str) -> str:
    """Its letters and digits alone."""
    return "".join(_TOKEN.findall(text))
