"""What people decide may be shown: a rule, and a book of them that every query is held to; pure.

Precedence, from the strongest:

1. A block without any text ("nothing under this video", author, category, in this market).
2. Of the other blocks and allows that match, the one whose scope is narrowest: a video, then an
   author, then a category, then everywhere; among these an exact query, then a word, then a
   pattern. Where a block and an allow are equal in both, the block holds.

A pinned query is allowed in its scope as an exact query is. `learn` holds back as a block does, but
what it matches may be trained on.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator

from msgspec import Struct, structs

from onebar.errors import OneBarError
from onebar.evidence.text import normalize_query
from onebar.evidence.words import match_key
from onebar.gating.linear import PatternError, PatternSet, compile_pattern
from onebar.gating.skeleton import simplified, skeleton, squeezed, words_of
from onebar.records import Rule

_TOKEN = re.compile(r"[^\W_]+")
_POSSESSIVE = re.compile(r"['’]s\b")
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003134f]"
)
"""Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, kana and Han."""
_LANGUAGES = (
    ("ja", "\u3040-\u30ff"),
    ("zh", "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"),
    ("ko", "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af"),
    ("th", "\u0e00-\u0e7f"),
    ("ar", "\u0600-\u06ff\u0750-\u077f"),
    ("he", "\u0590-\u05ff"),
    ("hi", "\u0900-\u097f"),
    ("bn", "\u0980-\u09ff"),
    ("ru", "\u0400-\u04ff"),
    ("el", "\u0370-\u03ff"),
    ("en", "A-Za-z\u00c0-\u024f\u1e00-\u1eff"),
)
_SCRIPTS = tuple((name, re.compile(f"[{chars}]")) for name, chars in _LANGUAGES)
LANGUAGES: tuple[str, ...] = tuple(name for name, _ in _LANGUAGES)


def language_of(text: str) -> str:
    """The language a query counts as, by its script: one of `LANGUAGES`, empty for what holds no
    letters of any. Whatever is in Latin letters alone counts as `en`, in Cyrillic as `ru`."""
    return next((name for name, script in _SCRIPTS if script.search(text)), "")


_SPLIT = 6
"""Words in a row that one rule may be about, or whose letters may make up what it is about."""
_PIECE = 3
"""Letters that each part of a split word must have: "pen is" is two words."""
TOGETHER = 64
"""Patterns that are looked for together."""


class RuleError(OneBarError, ValueError):
    """A rule that can't be: the text says what is wrong with it."""


def check_rule(rule: Rule) -> Rule:
    """The rule as it is kept, its texts normalised. Raises `RuleError`."""
    texts = {name: text for name in ("query", "word", "pattern") if (text := getattr(rule, name))}
    if len(texts) > 1:
        raise RuleError(f"expected one of query, word and pattern, got {' and '.join(texts)}")
    scoped = rule.video_id or rule.author or rule.category or rule.market
    if not texts and not (rule.action == "block" and scoped):
        raise RuleError(
            f"a rule to {rule.action} needs a query, a word or a pattern"
            + (", or a video, an author, a category or a market" if rule.action == "block" else "")
        )
    if rule.action == "pin" and not (rule.query and (rule.video_id or rule.category)):
        raise RuleError("a pin needs a query, and a video or a category to pin it to")
    if unknown := set(rule.languages) - set(LANGUAGES):
        raise RuleError(
            f"expected languages of {', '.join(LANGUAGES)}, got {', '.join(sorted(unknown))}"
        )
    if rule.starts is not None and rule.ends is not None and rule.ends <= rule.starts:
        raise RuleError("it ends before it starts")
    changes = {}
    for name, text in texts.items():
        if name == "pattern":
            try:
                compile_pattern(_anycase(text))
            except PatternError as error:
                raise RuleError(f"the pattern can't be used: {error}") from None
            continue
        normal = normalize_query(text)
        if not normal or (name == "word" and not _phrase(normal)):
            raise RuleError(
                f"the {name} {text!r:.80} comes to nothing once it is normalised: no query could "
                "ever match it"
            )
        changes[name] = normal
    for name in ("author", "category"):
        changes[name] = _folded(getattr(rule, name))
    return structs.replace(rule, **changes)


class About(Struct, frozen=True, gc=False):
    """The video that a query is to stand under, as far as rules care."""

    video_id: str = ""
    author: str = ""
    category: str = ""


class Decision(Struct, frozen=True, gc=False):
    """What the rules say of a query: which one decides, if any. `held` where it holds back."""

    rule: Rule | None = None

    @property
    def held(self) -> bool:
        return self.rule is not None and self.rule.action in ("block", "learn")

    @property
    def allowed(self) -> bool:
        """Whether a rule says expressly that it may be shown."""
        return self.rule is not None and not self.held


UNDECIDED = Decision()


class RuleBook:
    """Rules by what they are about. `version` names its content to whoever keeps it up to date."""

    def __init__(self, rules: Iterable[Rule] = (), *, market: str = "") -> None:
        self.version = 0
        self.market = market
        self._rules: dict[str, Rule] = {}
        self._exact: dict[str, list[Rule]] = {}
        self._squeezed: dict[str, list[Rule]] = {}
        """Those that hold an exact query back, by its letters alone."""
        self._words: dict[str, list[Rule]] = {}
        """Those that allow words, by the first."""
        self._joined: dict[str, list[Rule]] = {}
        """Those that hold words back, by the letters of all, without plurals."""
        self._chars: dict[str, list[Rule]] = {}
        self._broad: dict[str, list[Rule]] = {}
        self._pins: dict[str, list[Rule]] = {}
        self._patterns = _Patterns()
        self._boundaries: list[float] = []
        self._about = 0
        for rule in rules:
            self.put(rule)

    def __len__(self) -> int:
        return len(self._rules)

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules.values())

    def get(self, rule_id: str) -> Rule | None:
        """The rule of this id."""
        return self._rules.get(rule_id)

    @property
    def asks_about(self) -> bool:
        """Whether any rule looks at a video's author or category."""
        return self._about > 0

    def put(self, rule: Rule) -> None:
        """Add a rule that `check_rule` gave, or put it in the place of that of its id."""
        self.remove(rule.rule_id)
        self._rules[rule.rule_id] = rule
        for key, shelf in self._shelves(rule):
            shelf.setdefault(key, []).append(rule)
        if rule.pattern:
            self._patterns.put(rule)
        for moment in (rule.starts, rule.ends):
            if moment is not None:
                bisect.insort(self._boundaries, moment)
        self._about += bool(rule.author or rule.category)

    def remove(self, rule_id: str) -> None:
        """Take out the rule of this id, if there is one."""
        rule = self._rules.pop(rule_id, None)
        if rule is None:
            return
        for key, shelf in self._shelves(rule):
            rules = [other for other in shelf[key] if other.rule_id != rule_id]
            if rules:
                shelf[key] = rules
            else:
                del shelf[key]
        if rule.pattern:
            self._patterns.remove(rule_id)
        for moment in (rule.starts, rule.ends):
            if moment is not None:
                del self._boundaries[bisect.bisect_left(self._boundaries, moment)]
        self._about -= bool(rule.author or rule.category)

    def passed_boundaries(self, now: float) -> int:
        """How many periods have begun or ended by now: another number, other rules."""
        return bisect.bisect_right(self._boundaries, now)

    def barred(self, about: About, now: float) -> Rule | None:
        """The rule that holds back whatever would stand under this video, if any."""
        if not self._broad:
            return None
        for key in (about.video_id, _folded(about.author), _folded(about.category), ""):
            for rule in self._broad.get(key, ()):
                if self._holds(rule, about, "", now):
                    return rule
        return None

    def decide(self, query: str, about: About, now: float) -> Decision:
        """What decides about a normalised query; `barred` has been asked before."""
        best: Rule | None = None
        rank = (-1, -1, -1)
        for rule in self._matching(query):
            if self._holds(rule, about, query, now) and (found := _rank(rule)) > rank:
                best, rank = rule, found
        return UNDECIDED if best is None else Decision(best)

    def generated(self, query: str) -> bool | None:
        """Whether rules about exactly this query have it generated: yes where one allows or pins it
        somewhere; no where one blocks it without any scope or period; None where none says so."""
        rules = self._exact.get(query, ())
        if any(rule.action not in ("block", "learn") for rule in rules):
            return True
        for rule in rules:
            scoped = rule.video_id or rule.author or rule.category or rule.languages
            timed = rule.starts is not None or rule.ends is not None
            if not (scoped or timed) and rule.market in ("", self.market):
                return False
        return None

    def pinned(self, about: About, now: float) -> list[Rule]:
        """The pins that hold under a video: those of the video first, then by when they were
        made."""
        if not self._pins:
            return []
        keys = (about.video_id, _folded(about.category))
        found = {
            rule.rule_id: rule
            for key in keys
            if key
            for rule in self._pins.get(key, ())
            if self._holds(rule, about, rule.query, now)
        }
        return sorted(found.values(), key=lambda r: (not r.video_id, r.ts, r.rule_id))

    def _shelves(self, rule: Rule) -> list[tuple[str, dict[str, list[Rule]]]]:
        """Under which keys it stands, and where."""
        found = []
        if rule.query:
            found.append((rule.query, self._exact))
            if _holds_back(rule) and (letters := squeezed(skeleton(rule.query))):
                found.append((letters, self._squeezed))
        elif rule.word:
            words = _phrase(_sought(rule))
            if _UNSPACED.search(rule.word):
                found.append((words[0][:2], self._chars))
            elif _holds_back(rule):
                found.append(("".join(map(match_key, words)), self._joined))
            else:
                found.append((words[0], self._words))
        elif not rule.pattern:
            found.append((rule.video_id or rule.author or rule.category, self._broad))
        if rule.action == "pin":
            found.append((rule.video_id or rule.category, self._pins))
        return found

    def _matching(self, query: str) -> Iterator[Rule]:
        """What matches the query as it is written; of what holds back, also how it reads."""
        yield from self._written(query)
        reads = skeleton(query)
        if self._squeezed:
            yield from self._squeezed.get(squeezed(reads), ())
        if reads != query:
            yield from filter(_holds_back, self._written(reads))
        if self._joined:
            yield from self._spelt(words_of(_POSSESSIVE.sub("", reads)).split())

    def _spelt(self, words: list[str]) -> Iterator[Rule]:
        """Those that hold back these words as they stand, in the plural, joined or split."""
        keys = [match_key(word) for word in words]
        for at in range(len(keys)):
            letters = ""
            for end, key in enumerate(keys[at : at + _SPLIT], at + 1):
                letters += key
                for rule in self._joined.get(letters, ()):
                    together = keys[at:end]
                    if (
                        len(together) == 1
                        or min(map(len, together)) >= _PIECE
                        or together == [match_key(word) for word in _phrase(_sought(rule))]
                    ):
                        yield rule

    def _written(self, query: str) -> Iterator[Rule]:
        yield from self._exact.get(query, ())
        if self._words:
            words = _TOKEN.findall(query)
            for at, word in enumerate(words):
                for rule in self._words.get(word, ()):
                    phrase = _phrase(rule.word)
                    if len(phrase) == 1 or words[at : at + len(phrase)] == phrase:
                        yield rule
        if self._chars and _UNSPACED.search(query):
            text = query.replace(" ", "")
            for at in range(len(text)):
                for key in (text[at], text[at : at + 2]):
                    for rule in self._chars.get(key, ()):
                        if text.startswith(_phrase(_sought(rule))[0], at):
                            yield rule
        yield from self._patterns.matching(query)

    def _holds(self, rule: Rule, about: About, query: str, now: float) -> bool:
        return (
            (not rule.video_id or rule.video_id == about.video_id)
            and (not rule.author or rule.author == _folded(about.author))
            and (not rule.category or rule.category == _folded(about.category))
            and (not rule.market or rule.market == self.market)
            and (rule.starts is None or rule.starts <= now)
            and (rule.ends is None or now < rule.ends)
            and (not rule.languages or not query or language_of(query) in rule.languages)
        )


class _Patterns:
    """Rules by pattern, some together in a set: with one changed, one set is built anew, and so few
    are in each that this takes no time that a request would notice."""

    def __init__(self) -> None:
        self._sets: list[dict[str, Rule]] = []
        self._built: list[PatternSet | None] = []
        self._place: dict[str, int] = {}

    def put(self, rule: Rule) -> None:
        at = next((n for n, some in enumerate(self._sets) if len(some) < TOGETHER), None)
        if at is None:
            at = len(self._sets)
            self._sets.append({})
            self._built.append(None)
        self._sets[at][rule.rule_id] = rule
        self._place[rule.rule_id] = at
        self._built[at] = None
        if len(self._sets[at]) == TOGETHER:
            self._set(at)

    def remove(self, rule_id: str) -> None:
        at = self._place.pop(rule_id)
        del self._sets[at][rule_id]
        self._built[at] = None

    def matching(self, query: str) -> Iterator[Rule]:
        for at, some in enumerate(self._sets):
            if found := self._set(at).matching(query):
                rules = list(some.values())
                yield from (rules[number] for number in found)

    def _set(self, at: int) -> PatternSet:
        built = self._built[at]
        if built is None:
            texts = [_looked_for(rule) for rule in self._sets[at].values()]
            built = self._built[at] = PatternSet(texts)
        return built


def _rank(rule: Rule) -> tuple[int, int, int]:
    """The greater one decides."""
    scope = 3 if rule.video_id else 2 if rule.author else 1 if rule.category else 0
    match = 3 if rule.query else 2 if rule.word else 1
    return scope, match, int(rule.action in ("block", "learn"))


def _holds_back(rule: Rule) -> bool:
    return rule.action in ("block", "learn")


def _sought(rule: Rule) -> str:
    """The words looked for: as they read, in a rule that holds back."""
    return skeleton(rule.word) if _holds_back(rule) else rule.word


def _looked_for(rule: Rule) -> str:
    """Its pattern, and in a rule that holds back also what it says in simplified characters."""
    pattern = _anycase(rule.pattern)
    if _holds_back(rule) and (reads := simplified(rule.pattern)) != rule.pattern:
        either = f"(?:{pattern})|(?:{_anycase(reads)})"
        try:
            return compile_pattern(either).text
        except PatternError:
            return pattern
    return pattern


def _phrase(word: str) -> list[str]:
    """What is looked for: words in a row, or characters without spaces."""
    if _UNSPACED.search(word):
        return [word.replace(" ", "")]
    return _TOKEN.findall(word)


def _anycase(pattern: str) -> str:
    return f"(?i){pattern}"


def _folded(text: str) -> str:
    return normalize_query(text) if text else ""
