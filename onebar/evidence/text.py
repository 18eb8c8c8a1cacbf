"""Text from outside, made fit to read: pure functions, no settings, no I/O after import.

Everything here is linear in its input: fields are cut to `RAW_LIMIT` characters before anything
else looks at them, and no pattern can backtrack. The two word lists are data files that people
extend: `data/promo_phrases.txt` and `data/noisy_hashtags.txt`.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from html import unescape
from pathlib import Path

import msgspec

from onebar.evidence.scripts import JOINERS, JOINING, MARKS, VIRAMAS
from onebar.records import VideoText

SEP = "[SEP]"
REJECT = "[REJECT]"
SPECIAL_TOKENS = (SEP, REJECT, "<s>", "</s>", "<pad>", "<unk>", "<mask>")
"""What the model's vocabulary reserves; never allowed to come from outside."""

RAW_LIMIT = 4000
"""Characters of a field that are looked at; the rest of a longer one is not read."""
FIELD_LIMIT = 600
"""Characters a cleaned field keeps."""
QUERY_LIMIT = 128
"""Characters a normalised query keeps."""
MAX_HASHTAGS = 3
"""Informative hashtags whose words a field keeps; from the fourth on it is a tag cloud."""

_DATA = Path(__file__).parent / "data"
_SPECIAL = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS), re.IGNORECASE)
_URL = re.compile(r"(?:https?://|www\.)[^\s\u3000-\u9fff]{1,2048}", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{2,6}|#[xX][0-9a-fA-F]{2,5});")
_ELEMENT = re.compile(r"<(script|style)\b[^<>]{0,300}>[^<]{0,4000}</\1\s{0,9}>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,300}>|<!--[^<>]{0,300}-->")
_MENTION = re.compile(rf"@[\w{MARKS}.\-]{{1,64}}:?")
_HASHTAG = re.compile(r"#([^\s#@]{1,64})(?:#(?=\s|$))?")
_WEIBO_TAG = re.compile(r"#([^\s#@]{1,32})#")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_CHAR_RUN = re.compile(r"([^\d\s])\1{3,}")
_PUNCTUATION_RUN = re.compile(r"([!?.,~。！？，、…\-_=*+|/\\])[!?.,~。！？，、…\-_=*+|/\\]+")
_SEGMENT = re.compile(r"(?<=[!?。！？;；\n])|(?<=\.)(?=\s)")
_NOT_WORD = re.compile(rf"[^\w{MARKS}]+")
_LOOSE_JOINER = re.compile(
    rf"(?<![{JOINING}{JOINERS}])[{JOINERS}]+|[{JOINERS}](?=[{JOINERS}])"
    rf"|(?<![{VIRAMAS}])[{JOINERS}](?![{JOINING}])"
)
"""A joiner that joins nothing: one stays, between two letters of a script that uses it or behind
what takes a vowel."""
_TURKISH = re.compile("[ğĞıİşŞ]")
_ROMANIAN = re.compile("[ăĂţŢțȚșȘ]")
_NORMAL = re.compile(r"[a-z0-9\u4e00-\u9fff]+(?: [a-z0-9\u4e00-\u9fff]+)*")
"""Most queries: what `normalize_query` would leave as it is."""


_KEPT_SYMBOLS = "°℃℉№"
"""What Unicode counts among pictures, and people write into queries."""
_FILLERS = "\u115f\u1160\u3164\uffa0"
"""Letters that show nothing."""
_SHAPES = (
    (0xFB00, 0xFB06),  # typographic ligatures
    (0xFB50, 0xFDEF),  # Arabic letters as they are printed
    (0xFE10, 0xFE6B),  # vertical and small punctuation
    (0xFE70, 0xFEFC),  # Arabic letters as they are printed
    (0xFF01, 0xFFE2),  # full and half width
    (0xFFE4, 0xFFE6),
    (0x1D400, 0x1D7FF),  # letters of a style: bold, script
)
"""Characters that differ from another only in width or style: the other one stands for them."""


class _CharacterTable(dict[int, int | str | None]):
    """What `str.translate` does to each character, worked out when first met.

    Line breaks stay, other white space and controls become a space; format characters other than
    joiners (zero-width, bidi), surrogates, private use, unassigned, and pictures (emoji and their
    modifiers) go; width and style are undone.
    """

    def __missing__(self, code: int) -> int | str | None:
        char = chr(code)
        category = unicodedata.category(char)
        action: int | str | None = code
        if char in "\n\r\x0b\x0c\x85\u2028\u2029":
            action = "\n"
        elif category in ("Cc", "Zs"):
            action = " "
        elif char in JOINERS or char in _KEPT_SYMBOLS:
            action = code
        elif (
            category in ("Cf", "Cs", "Co", "Cn", "So")
            or 0xFE00 <= code <= 0xFE0F
            or 0x1F3FB <= code <= 0x1F3FF
            or char in _FILLERS
        ):
            action = None
        elif any(first <= code <= last for first, last in _SHAPES):
            action = unicodedata.normalize("NFKC", char)
        self[code] = action
        return action


_CHARACTERS = _CharacterTable()


def _plain(text: str, limit: int) -> str:
    """What was written (NFC), without control, format and picture characters, width and style;
    at most `limit` characters."""
    text = text[:limit]
    if text.isascii():
        return text if text.isprintable() else text.translate(_CHARACTERS)
    text = unicodedata.normalize("NFC", _LOOSE_JOINER.sub("", text.translate(_CHARACTERS)))[:limit]
    folded = unicodedata.normalize("NFKC", text)
    # A token in a disguise that somebody downstream might undo.
    return folded[:limit] if len(_SPECIAL.findall(folded)) > len(_SPECIAL.findall(text)) else text


def lower(text: str) -> str:
    """Lower case, with the dotless and the dotted i of a text that is Turkish by its letters."""
    if text.isascii():
        return text.lower()
    if "I" in text and _TURKISH.search(text) and not _ROMANIAN.search(text):
        text = text.replace("I", "ı")
    return text.lower().replace("i\u0307", "i")


def neutralize(text: str) -> str:
    """The text with every special token, in any case, replaced by a space.

    What is left can't form one: tokens hold no space.
    """
    return _SPECIAL.sub(" ", text) if "[" in text or "<" in text else text


def one_line(text: str) -> str:
    """White space collapsed to single spaces, none at the ends."""
    return " ".join(text.split())


def plain_line(text: str, limit: int = RAW_LIMIT) -> str:
    """One line as it was written (NFC), without control characters or special tokens. Not
    idempotent on pathological input, but its result never holds a special token."""
    return one_line(neutralize(_plain(text, limit)))


def is_plain(query: str) -> bool:
    """Whether a text is nothing but lower-case ASCII letters, figures, common Chinese characters
    and single spaces between them, as most queries are: the spelling that `normalize_query` leaves
    as it is, with no special token in it."""
    return _NORMAL.fullmatch(query) is not None


def normalize_query(query: str) -> str:
    """The one spelling of a query that state, training and serving share.

    Faithful to its script: NFC, so that vowel signs, tone marks, joiners between letters that
    join, and ° stay as they were written, and what is shown is what was typed. Folded are case,
    width and style of letters, and white space; control characters and special tokens go; at most
    `QUERY_LIMIT` characters. Empty where nothing is left: drop it then. Idempotent. What else two
    spellings share (accents, plurals, compatibility forms) is for `onebar.evidence.words.match_key`
    to fold: it decides what counts as the same, never what is shown.
    """
    if len(query) <= QUERY_LIMIT and is_plain(lowered := query.lower()):
        return lowered
    text = query[:RAW_LIMIT]
    for _ in range(4):
        before = text
        text = plain_line(lower(text))[:QUERY_LIMIT].strip()
        if text == before:
            break
    return text


def _lines(name: str) -> list[str]:
    lines = (_DATA / name).read_text(encoding="utf-8").splitlines()
    stripped = (unicodedata.normalize("NFKC", line).strip() for line in lines)
    return [line for line in stripped if line and not line.startswith("//")]


def _phrase_pattern(phrase: str) -> str:
    """What follows the first character of a phrase."""
    pattern = re.escape(phrase[1:]).replace(r"\*", r"[^\S\n]?\S{0,32}")
    pattern = pattern.replace(r"\ ", r"[^\S\n]+")
    return pattern + r"\b" if phrase[-1].isascii() and phrase[-1].isalnum() else pattern


@lru_cache(maxsize=1)
def _promo() -> re.Pattern[str]:
    """Any phrase of the file, the longest there is.

    Phrases are grouped by their first character and looked for only where there is one of these,
    those of words only where a word begins: trying them all at every position takes twenty times
    as long.
    """
    groups: dict[str, list[str]] = {}
    for phrase in sorted(_lines("promo_phrases.txt"), key=lambda phrase: (-len(phrase), phrase)):
        groups.setdefault(phrase[0].casefold(), []).append(phrase)
    if not groups:
        return re.compile(r"(?!)")
    begins = [first for first in groups if first.isascii() and first.isalnum()]
    others = [first for first in groups if first not in begins]

    def any_of(firsts: list[str]) -> str:
        starts = "".join(map(re.escape, firsts))
        patterns = (
            f"{re.escape(first)}(?:{'|'.join(map(_phrase_pattern, groups[first]))})"
            for first in firsts
        )
        return f"(?=[{starts}])(?:{'|'.join(patterns)})" if firsts else "(?!)"

    return re.compile(rf"\b{any_of(begins)}|{any_of(others)}", re.IGNORECASE)


@lru_cache(maxsize=1)
def _noisy_hashtags() -> frozenset[str]:
    return frozenset(line.casefold() for line in _lines("noisy_hashtags.txt"))


def _hashtags(text: str) -> str:
    """Noisy tags go; the first `MAX_HASHTAGS` others stay as plain words."""
    if "#" not in text:
        return text
    kept = 0

    def words(match: re.Match[str]) -> str:
        nonlocal kept
        tag = match[1].strip(".,!?:;。，！？：；")
        if kept >= MAX_HASHTAGS or tag.casefold() in _noisy_hashtags():
            return " "
        kept += 1
        return f" {_CAMEL.sub(' ', tag).replace('_', ' ')} "

    text = _WEIBO_TAG.sub(words, text)
    return _HASHTAG.sub(words, text).replace("#", " ")


def _shortest_period(text: str) -> str:
    """The unit of a text that is one unit repeated: 'abcabc' gives 'abc'."""
    if len(text) < 4:
        return text
    period = (text + text).find(text, 1)
    return text[:period] if 2 <= period < len(text) and not text.strip().isdigit() else text


def _fresh_segments(text: str, seen: set[str]) -> list[str]:
    """The sentences that hold a word and were not seen before; `seen` is added to."""
    fresh = []
    for segment in _SEGMENT.split(text):
        words = [_shortest_period(word) for word in segment.split()]
        kept = [word for word, before in zip(words, ["", *words], strict=False) if word != before]
        line = _shortest_period(" ".join(kept) + " ").strip()
        key = _NOT_WORD.sub("", line).casefold()
        if key and key not in seen:
            seen.add(key)
            fresh.append(line)
    return fresh


def _without_markup(text: str) -> str:
    """What a page would show of it: no tags, and characters in the place of their names."""
    for _ in range(3):
        before = text
        if "&" in text:
            text = _ENTITY.sub(lambda entity: unescape(entity[0]), text)
        if "<" in text:
            text = _TAG.sub(" ", _ELEMENT.sub(" ", text))
        if text == before:
            break
    return text


def _clean(text: str, seen: set[str], *, mentions: bool) -> str:
    if not text:
        return ""
    text = neutralize(_plain(_without_markup(text[:RAW_LIMIT]), RAW_LIMIT))
    # Most texts have none of these, and to look for one character takes no time.
    if "://" in text or "www." in text.lower():
        text = _URL.sub(" ", text)
    if "@" in text:
        text = text.replace("@", " ") if mentions else _MENTION.sub(" ", text)
    text = _promo().sub(" ", _hashtags(text))
    text = _PUNCTUATION_RUN.sub(r"\1", _CHAR_RUN.sub(r"\1\1", text))
    text = " ".join(_fresh_segments(text, seen))
    return neutralize(one_line(text)[:FIELD_LIMIT]).strip(" \t,，、|:;；~-_*")


def clean_text(text: str) -> str:
    """One field without noise (paper: T is cleaned of noisy hashtags and @mentions, other
    accounts' ads and profile text, low-information and duplicated text).

    Gone: HTML, control and format characters, emoji, links, @mentions, promotion phrases, noisy
    hashtags and tag clouds (the first `MAX_HASHTAGS` informative hashtags stay as words, split
    at capitals and underscores), repeated sentences, words and characters, special tokens.
    One line as it was written (NFC) of at most `FIELD_LIMIT` characters.
    """
    return _clean(text, set(), mentions=False)


def clean_video(video: VideoText) -> VideoText:
    """A video's text with every field cleaned and nothing said twice across T's fields.

    A sentence stays in the first field that has it, in the order item title, title, caption,
    OCR, ASR; a field contained in an earlier one goes. The author keeps a leading @'s name.
    `summary` (M) and `category` are cleaned by themselves.
    """
    seen: set[str] = set()
    fields: dict[str, str] = {}
    for name in ("item_title", "title", "caption", "ocr", "asr"):
        field = _clean(getattr(video, name), seen, mentions=False)
        folded = field.casefold()
        said = any(folded in earlier.casefold() for earlier in fields.values())
        fields[name] = "" if said else field
    for name in ("author", "category"):
        fields[name] = _clean(getattr(video, name), set(), mentions=True)[:64].strip()
    fields["summary"] = clean_text(video.summary)
    return msgspec.structs.replace(video, **fields)
