"""What a query reads like, however it is spelt: for holding back alone, never shown.

Who wants to get a blocked query past the rules writes it with letters of another alphabet, accents,
digits of another script, traditional characters for simplified ones, or something between the
letters.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from importlib import resources

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
_HAN = re.compile("[\u3400-\u9fff\U00020000-\U0003134f]")
_ENDS = re.compile(r"(?<=[a-z0-9])。(?=[a-z])")


@lru_cache(maxsize=16384)
def skeleton(query: str) -> str:
    """A normalised query as it reads: letters of other alphabets among Latin ones, accents, digits
    of other scripts, traditional characters, what stands between single letters, and spaces around
    . @ / : folded."""
    text = "".join(
        char if not char.isdigit() or char.isascii() else str(unicodedata.digit(char))
        for char in unicodedata.normalize("NFKD", query).casefold()
        if not unicodedata.combining(char)
    )
    text = simplified(unicodedata.normalize("NFC", text))
    text = " ".join(
        word.translate(_LOOKS_LIKE) if _LATIN.search(word) else word for word in text.split()
    )
    text = _HAN_NUMBER.sub(lambda found: found[0].translate(_HAN_DIGITS), text)
    text = _ENDS.sub(".", text)
    text = _SPELT.sub(lambda found: "".join(_TOKEN.findall(found[0])), text)
    return _AROUND.sub(r"\1", text)


def simplified(text: str) -> str:
    """Traditional Chinese characters as simplified ones, each for itself: as many as there were. To
    compare by, not to show: some that mean several things become one."""
    return text.translate(_simplified_characters()) if _HAN.search(text) else text


@lru_cache(maxsize=1)
def _simplified_characters() -> dict[int, str]:
    """By OpenCC's table, the first where it knows several."""
    table = resources.files("opencc_purepy") / "dicts" / "TSCharacters.txt"
    lines = (line.split() for line in table.read_text(encoding="utf-8").splitlines())
    return {ord(parts[0]): parts[1] for parts in lines if parts and len(parts[0]) == 1}


def words_of(text: str) -> str:
    """Its letters and digits, with a space where anything else is."""
    return " ".join(_TOKEN.findall(text))


def squeezed(text: str) -> str:
    """Its letters and digits alone."""
    return "".join(_TOKEN.findall(text))
