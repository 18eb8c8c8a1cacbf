"""Text noise: slips of the finger, tags, mentions, promotion, pictures."""

from __future__ import annotations

from stream.simulator.config import Lang
from stream.simulator.texts.wording import Rand

_NEIGHBOURS = {
    "a": "s", "b": "v", "c": "x", "d": "s", "e": "r", "f": "g", "g": "h", "h": "j", "i": "o",
    "k": "l", "l": "k", "m": "n", "n": "m", "o": "p", "p": "o", "r": "t", "s": "d", "t": "y",
    "u": "i", "v": "b", "w": "e", "y": "u",
}  # fmt: skip
_HOMOPHONES = {
    "的": "得", "在": "再", "做": "作", "式": "试", "好": "号", "新": "心", "女": "钕", "包": "饱",
    "鞋": "鞵", "机": "几", "套": "淘", "霜": "双", "水": "氺", "防": "妨", "装": "庄", "色": "涩",
    "器": "气", "衣": "依", "裤": "库", "杯": "背", "粉": "纷", "面": "而", "美": "每", "小": "晓",
    "用": "佣", "电": "店", "子": "籽", "家": "佳", "车": "伡", "儿": "而", "高": "膏", "生": "声",
}  # fmt: skip


def pick(items: tuple[str, ...], rand: Rand) -> str:
    return items[int(rand() * len(items))]


def misspell(text: str, lang: Lang, rand: Rand) -> str:
    """The text with one slip: never empty, often the same where nothing can slip."""
    if lang == "zh":
        start = int(rand() * len(text)) if text else 0
        for step in range(len(text)):
            at = (start + step) % len(text)
            if text[at] in _HOMOPHONES:
                return text[:at] + _HOMOPHONES[text[at]] + text[at + 1 :]
        return text
    if len(text) < 5:
        return text
    at = 1 + int(rand() * (len(text) - 3))
    here, there = text[at], text[at + 1]
    if not (here.isascii() and here.isalpha() and there.isascii() and there.isalpha()):
        return text
    kind = int(rand() * 4)
    if kind == 0:
        return text[:at] + there + here + text[at + 2 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    if kind == 2:
        return text[:at] + here + text[at:]
    return text[:at] + _NEIGHBOURS.get(here.lower(), here) + text[at + 1 :]


def hashtag(words: str, lang: Lang, rand: Rand) -> str:
    """A hashtag of words as people write them: joined, sometimes in capitals."""
    if lang == "zh":
        return "#" + words.replace(" ", "")
    parts = [part for part in words.replace("&", " ").replace("-", " ").split(" ") if part]
    if rand() < 0.4:
        parts = [part[0].upper() + part[1:] for part in parts]
    return "#" + "".join(parts)


def shout(text: str, rand: Rand) -> str:
    """Now and then in capitals, or with no capital at all."""
    draw = rand()
    if draw < 0.05:
        return text.upper()
    return text.lower() if draw < 0.25 else text
