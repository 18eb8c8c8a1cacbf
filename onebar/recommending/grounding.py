"""What may be shown of what was generated: everything a query says must come from somewhere."""

from __future__ import annotations

import hashlib
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from onebar.errors import OneBarError
from onebar.evidence.chinese import chinese_kinds
from onebar.evidence.evidence import HAN_CHARACTER
from onebar.evidence.scripts import HAN
from onebar.evidence.text import SPECIAL_TOKENS, is_plain, normalize_query
from onebar.evidence.words import Word, joining, parts, words
from onebar.recommending.phrases.clauses import is_clause, is_only_done
from onebar.recommending.phrases.names import (
    COMMON,
    glues,
    go_together,
    measures,
    names,
    role,
    script,
)
from onebar.recommending.phrases.whole import ChineseWords, breaks_off, repeats, runs
from onebar.records import Candidate

MAX_CANDIDATE_CHARS = 64
REPLACEMENT = "\ufffd"
"""What a decoder leaves where bytes form no character."""
_STEM = 5
"""Letters that two words of one alphabet must begin with to be forms of one word."""


class Drop(StrEnum):
    """Why a candidate is not shown."""

    BROKEN = "broken"
    """Half a character, a special token, no letter or digit, or too long."""
    FRAGMENT = "fragment"
    """A piece of a sentence: it begins or ends with a word that only joins others, says nothing but
    what is said of anything, tells what somebody does, or spans two sentences."""
    REPEATED = "repeated"
    """A word twice."""
    UNGROUNDED = "ungrounded"
    """None of its words touches the text, the summary, the anchors or the history."""
    NONWORD = "nonword"
    """A word that is neither in the evidence nor in any lexicon, half a word of the text, or a
    number or model name that the evidence doesn't have."""
    SCRIPT = "script"
    """A script that the evidence doesn't use."""
    IMPROBABLE = "improbable"
    """Below the checkpoint's floor."""
    STRANGE = "strange"
    """A word that the evidence hasn't, beside one that it doesn't go with."""
    RISKY = "risky"
    """It says what a bar must not say."""
    REPERTOIRE = "repertoire"
    """Not of the repertoire, where nothing else is to be generated."""
    DUPLICATE = "duplicate"
    """The same words as a better one, in another order, number or with trivial ones more."""


_TWO_SENTENCES = re.compile(rf"[?!;|)。！？；]\s*\w|[{HAN}]/[{HAN}]")
_OPEN_HYPHEN = re.compile(r"\w[-‐‑](?!\w)")


_LOOSE = re.compile(r"^[\s·•,;:!?|/\\)\]}、。，]+|[\s·•,;:|/\\(\[{、，]+$")
"""Punctuation that no query begins or ends with."""
_HALF = 3
"""Letters that half a word has at least."""
_INFLECTION = re.compile("ings?|ers|est|ness|able|less|ful|ment|ie[rs]|ally|ity|ists?")
"""Endings that make another form of a word, beside those of one or two letters."""
_WHOSE = re.compile("my|your|our|his|her|their|its|this|that|these|those|an?|the", re.IGNORECASE)
"""What no query that a model writes begins with."""
_LEADS_ON = frozenset(
    ["for", "with", "to", "of", "in", "on", "at", "from", "into", "without", "under"]
)
"""English prepositions: what they lead to is said of what stands before."""
_UNKNOWN = ("u", "U", "o")
_JOINS = frozenset(["and", "at", "but", "by", "from", "into", "of", "onto", "or", "than", "with"])
"""What no English query begins with, as one may with *how to* or *in ear*."""


def trimmed(text: str) -> str:
    """What was generated, without the punctuation that a decoder leaves at its ends."""
    return _LOOSE.sub("", text)


def is_fragment(query: str) -> bool:
    """Whether it goes on behind the end of a sentence, or a hyphen joins a word to nothing."""
    return _TWO_SENTENCES.search(query) is not None or _OPEN_HYPHEN.search(query) is not None


def presentable(text: str) -> str:
    """The query as it may be shown, or an empty string where it must not be (`Drop.BROKEN`)."""
    if len(text) <= MAX_CANDIDATE_CHARS and is_plain(lowered := text.lower()):
        return lowered
    folded = text.casefold()
    if REPLACEMENT in text or any(token.casefold() in folded for token in SPECIAL_TOKENS):
        return ""
    query = normalize_query(text)
    if len(query) > MAX_CANDIDATE_CHARS or not any(char.isalnum() for char in query):
        return ""
    return query


def token_log_probability(candidate: Candidate) -> float:
    """A candidate's log probability by the token, its end included: what a floor is set on.

    Tokens are counted as four bytes of UTF-8 each, which is close to what a byte-level BPE makes
    of text and needs no tokenizer.
    """
    return candidate.score / (1 + len(candidate.text.encode("utf-8", "surrogatepass")) / 4)


def calibrated_floor(candidates: Iterable[Candidate], share: float = 0.02) -> float:
    """The floor that so small a share of good candidates (those that were right on the valid
    part) lies below. Raises `ValueError` where there is none."""
    found = sorted(map(token_log_probability, candidates))
    if not found:
        raise ValueError("a floor is calibrated on at least one candidate")
    return found[int(share * (len(found) - 1))]


class LexiconError(OneBarError, ValueError):
    """A lexicon file that can't be read."""


class Lexicon:
    """Which words exist, as sorted 32-bit hashes of their match keys: 4 bytes a word, about one
    false friend in 100,000 for a vocabulary of 40,000."""

    def __init__(self, hashes: array[int]) -> None:
        self._hashes = hashes

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, key: str) -> bool:
        wanted = _hash(key)
        at = bisect_left(self._hashes, wanted)
        return at < len(self._hashes) and self._hashes[at] == wanted

    @classmethod
    def of(cls, texts: Iterable[str]) -> Lexicon:
        """The words of some texts, and which stand side by side: what a model was trained on."""
        keys: set[str] = set()
        for text in texts:
            found = words(text)
            keys.update(key for word in found for key in parts(word))
            keys.update(pair_key(one, other) for one, other in pairwise(found))
        return cls(array("I", sorted(set(map(_hash, keys)))))

    def joined(self, other: Lexicon) -> Lexicon:
        """The words of both."""
        return Lexicon(array("I", sorted({*self._hashes, *other._hashes})))

    @classmethod
    def load(cls, path: Path) -> Lexicon:
        """Raises `LexiconError`."""
        data = path.read_bytes()
        if len(data) % 4:
            raise LexiconError(f"{path} is no lexicon: {len(data)} bytes are no whole words")
        hashes = array("I")
        hashes.frombytes(data)
        if any(a >= b for a, b in pairwise(hashes)):
            raise LexiconError(f"{path} is no lexicon: its words are not in order")
        return cls(hashes)

    @property
    def content(self) -> bytes:
        """What its file holds."""
        return self._hashes.tobytes()

    def save(self, path: Path) -> None:
        path.write_bytes(self.content)


def pair_key(one: Word, other: Word) -> str:
    """What a lexicon has neighbours under."""
    return f"{one.key} {other.key}"


def _hash(key: str) -> int:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "little")


class Ground:
    """What the evidence says, to hold candidates against."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.keys: set[str] = set()
        self.scripts: set[str] = set()
        self._pairs: set[str] = set()
        self._chinese = ChineseWords()
        self._stems: set[str] = set()
        self._joining: set[str] = set()
        self._beside: set[tuple[str, str]] = set()
        """Words that stand side by side."""
        self._texts: list[tuple[str, Sequence[Word]]] = []
        self._counted: set[str] = set()
        """Chinese words that say what the number before them counts."""
        self.add(texts)

    def add(self, texts: Iterable[str]) -> None:
        """These are evidence, too."""
        texts = tuple(texts)
        self._joining |= joining(texts)
        for text in texts:
            found = words(text)
            self._chinese.add(text, found)
            self._beside.update((one.key, other.key) for one, other in pairwise(found))
            self._texts.append((text, found))
            self._counted.update(
                other.key
                for one, other in pairwise(found)
                if one.tag == "m" and script(other) == "z" and other.key in measures()
            )
            for word in found:
                self.scripts.add(_script(word))
                if word.function:
                    continue
                self.keys.update(parts(word))
                self.keys.add(word.key)
                if script(word) == "z":
                    self._pairs.update(_pairs(word.key))
                elif len(word.key) >= _STEM:
                    self._stems.add(word.key[:_STEM])

    @property
    def empty(self) -> bool:
        """Whether the evidence holds no word at all: nothing, or pictures only."""
        return not self.keys

    def drop(self, found: Sequence[Word], lexicon: Lexicon | None = None) -> Drop | None:
        """Why a generated query of these words is not shown; None where it may be.

        Without a lexicon no word of an alphabet is held for none, as there is no telling.
        """
        if found and script(found[-1]) != "z" and (found[-1].function or self._joins(found[-1])):
            return Drop.FRAGMENT
        if found and (found[0].text.lower() in _JOINS or _WHOSE.fullmatch(found[0].text)):
            return Drop.FRAGMENT
        if found and (breaks_off(found) or found[0].key in self._counted or is_clause(found)):
            return Drop.FRAGMENT
        said = [word for word in found if not word.function]
        keys = [word.key for word in said if word.tag != "m"]
        chinese = runs(found)
        if len(set(keys)) < len(keys) or any(map(repeats, chinese)):
            return Drop.REPEATED
        if not all(map(self.in_script, found)):
            return Drop.SCRIPT
        if not any(map(self.touches, said)):
            return Drop.UNGROUNDED
        if not all(self._exists(word, lexicon) for word in said):
            return Drop.NONWORD
        if not all(self._chinese.whole(run, lexicon or ()) for run in chinese):
            return Drop.NONWORD
        if all(map(_about_nothing, said)):
            return Drop.FRAGMENT
        if lexicon is not None and not self._fits(found, lexicon):
            return Drop.STRANGE
        if any(self._glued(one, other, lexicon) for one, other in pairwise(found)):
            return Drop.STRANGE
        if not self._follows(found, lexicon):
            return Drop.STRANGE
        return None

    def _joins(self, word: Word) -> bool:
        """Whether the evidence has a word only to join others: a few words alone don't tell of
        which language they are ("receta de")."""
        return word.key in self._joining

    def _fits(self, found: Sequence[Word], lexicon: Lexicon) -> bool:
        """Whether a word that the evidence hasn't goes with its neighbours: all are of one script,
        and in Latin a name of the taxonomy or a text that the model was trained on has the two
        side by side. And two words that no taxonomy knows stand side by side in the evidence."""
        latin = [script(word) == "l" for word in found]
        for at, word in enumerate(found):
            if word.function or self.touches(word):
                continue
            if any(one != latin[at] for one in latin):
                return False
            pairs = [(found[i], found[i + 1]) for i in (at - 1, at) if 0 <= i < len(found) - 1]
            if latin[at] and not all(_known_pair(one, other, lexicon) for one, other in pairs):
                return False
        return not any(
            role(one) in _UNKNOWN and role(other) in _UNKNOWN and not self.beside(one, other)
            for one, other in pairwise(found)
            if pair_key(one, other) not in lexicon
        )

    def loose(self, found: Sequence[Word], lexicon: Lexicon | None) -> int:
        """How many words of Latin script stand beside one that they stand beside neither in the
        evidence nor in a name of the taxonomy nor in a text that the model was trained on: what
        was put together of words from here and there ("graduation iron")."""
        return sum(
            not (one.function or other.function)
            and script(one) == script(other) == "l"
            and not self.beside(one, other)
            and not _known_pair(one, other, lexicon)
            for one, other in pairwise(found)
        )

    def _follows(self, found: Sequence[Word], lexicon: Lexicon | None) -> bool:
        """Whether what a preposition leads to stands behind one in the evidence, too, or in a text
        that the model was trained on, and is more than a time or a number; and each number stands
        where the evidence has it. "Laptop for a week" is no laptop."""
        for at, word in enumerate(found):
            if word.tag == "m" and script(word) == "l" and not self._in_place(found, at):
                return False
            if at == 0 or word.text.lower() not in _LEADS_ON:
                continue
            behind = [one for one in found[at + 1 :] if not one.function]
            if all(one.tag == "m" or role(one) in "tj" for one in behind):
                return False
            before = found[at - 1]
            if self.beside(before, word) or found[at + 1].function:
                continue
            joined = word, found[at + 1]
            if not (self.beside(*joined) or (lexicon and pair_key(*joined) in lexicon)):
                return False
        return True

    def _glued(self, one: Word, other: Word, lexicon: Lexicon | None) -> bool:
        """Whether two Chinese things that the evidence has apart are written as one."""
        if one.end != other.start or not glues(one, other) or self.beside(one, other):
            return False
        if lexicon is not None and pair_key(one, other) in lexicon:
            return False
        return one.key in self.keys and other.key in self.keys

    def _in_place(self, found: Sequence[Word], at: int) -> bool:
        """Whether a number has a neighbour that it has in the evidence, with nothing but a space
        between."""
        beside = {(one.key, other.key) for one, other in pairwise(found[max(0, at - 1) : at + 2])}
        return not beside or any(
            (one.key, other.key) in beside and not text[one.end : other.start].strip()
            for text, said in self._texts
            for one, other in pairwise(said)
        )

    def beside(self, one: Word, other: Word) -> bool:
        """Whether the evidence has one right before the other."""
        return (one.key, other.key) in self._beside

    def in_script(self, word: Word) -> bool:
        """Whether the evidence has a word in this one's script, or it is in any: a number."""
        used = _script(word)
        return not used or used in self.scripts

    def touches(self, word: Word) -> bool:
        """Whether the evidence has the word, a form of it, or (Chinese) two of its characters."""
        if word.key in self.keys or any(part in self.keys for part in parts(word)):
            return True
        if script(word) == "z":
            return not self._pairs.isdisjoint(_pairs(word.key))
        return len(word.key) >= _STEM and word.key[:_STEM] in self._stems

    def _exists(self, word: Word, lexicon: Lexicon | None) -> bool:
        if word.key in self.keys:
            return True
        if word.tag in "mct" and not HAN_CHARACTER.match(word.text):
            # A number, a model's name: right to the letter, or made up.
            return word.tag == "t"
        if script(word) == "z":
            return True  # By `ChineseWords`.
        if any(self._is_half(part) for part in parts(word)):
            return False
        return lexicon is None or all(
            part in self.keys or part in names() or part in lexicon for part in parts(word)
        )

    def _is_half(self, key: str) -> bool:
        """Whether it is the beginning of a longer word of the evidence, and no form of it."""
        if key in self.keys or len(key) < _HALF:
            return False
        return any(
            one.startswith(key)
            and len(one) - len(key) > 2
            and not _INFLECTION.fullmatch(one[len(key) :])
            for one in self.keys
        )


def _known_pair(one: Word, other: Word, lexicon: Lexicon | None) -> bool:
    """Whether one stands right before the other in a name of the taxonomy, or in a text that the
    model was trained on."""
    return go_together(one, other) or (lexicon is not None and pair_key(one, other) in lexicon)


def _about_nothing(word: Word) -> bool:
    if word.tag == "m" or role(word) in COMMON - {"n"} or is_only_done(word):
        return True
    return chinese_kinds().get(word.text) == "common"


def _pairs(key: str) -> list[str]:
    return [key[i : i + 2] for i in range(max(1, len(key) - 1))]


def _script(word: Word) -> str:
    """Which script a word is in, roughly; empty for numbers and model names, which are in any."""
    if HAN_CHARACTER.match(word.text):
        return "z"
    if word.tag in "mc":
        return ""
    kind = script(word)
    if kind in "hk":
        return "z"
    return kind if kind in "zl" else f"o{ord((word.key or word.text)[0]) // 128}"
