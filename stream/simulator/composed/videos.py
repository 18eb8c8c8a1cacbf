"""Composed triggers: a video's text about one thing, what people asked, and a query for it.

What a model can learn from these is where in any text the thing is that people would search for,
and to copy it; which words there are it can't, for each of them is drawn from tens of thousands.
A query's words all stand in its evidence, but for a modifier now and then ("best ...").
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec
from msgspec import Struct

from onebar.evidence.evidence import video_line
from onebar.evidence.text import REJECT, clean_video, normalize_query
from onebar.records import VideoText
from onebar.triggers import Trigger
from stream.simulator.composed.words import OpenWords
from stream.simulator.texts.noise import misspell

T = TypeVar("T")

REJECTS = 0.09
FOREIGN = 0.04
"""Videos in a script of no word list."""
ANCHORED, WITH_HISTORY = 0.45, 0.3
_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"
_SCRIPTS = (
    ("\u0430", "\u044f", " "), ("\u03b1", "\u03c9", " "), ("\u0627", "\u064a", " "),
    ("\u0905", "\u0939", " "), ("\u0e01", "\u0e2e", ""), ("\u3042", "\u3093", ""),
    ("\u30a2", "\u30f3", ""), ("\uac00", "\ud7a0", " "), ("\u05d0", "\u05ea", " "),
    ("\u0985", "\u09b9", " "), ("\u0d05", "\u0d39", " "), ("\u1780", "\u17a2", ""),
)  # fmt: skip
_VIETNAMESE = "aăâbcdđeêghiklmnoôơpqrstuưvxyáàảãạếềểễệốồổỗộứừửữựíìỉĩịúùủũụ"


class Subject(Struct, frozen=True):
    """What a video is about, by slot of the templates."""

    lang: str
    n: str
    a: str
    b: str
    r: str
    u: str
    m: str
    s: str
    k: str
    x: str
    y: str
    info: bool

    def fill(self, template: str) -> str:
        return re.sub(r"\{([nabrumskxy])\}", lambda match: str(getattr(self, match[1])), template)


class Composer:
    """Draws triggers in one language, without end: those of a seed are always the same."""

    def __init__(self, words: OpenWords, seed: int) -> None:
        self._words = words
        self._random = random.Random(f"{seed}:{words.lang}:composed")
        self._zh = words.lang == "zh"

    def triggers(self, count: int, *, prefix: str = "") -> Iterator[Trigger]:
        """`count` triggers, named after `prefix`."""
        made = 0
        while made < count:
            trigger = self._trigger(f"{prefix}{self._words.lang}{made}")
            if trigger is not None:
                made += 1
                yield trigger

    # Drawing words -----------------------------------------------------------------------------

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _pick(self, items: Sequence[T]) -> T:
        return items[int(self._random.random() * len(items))]

    def _weighted(self, choices: dict[str, float]) -> str:
        [chosen] = self._random.choices(list(choices), list(choices.values()))
        return chosen

    def _syllables(self, least: int = 2, most: int = 4) -> str:
        count = self._random.randint(least, most)
        word = "".join(self._pick(_CONSONANTS) + self._pick(_VOWELS) for _ in range(count))
        return word + (self._pick(_CONSONANTS) if self._chance(0.4) else "")

    def _noun(self) -> tuple[str, bool]:
        """A thing's name, and whether it is a topic rather than a thing."""
        words = self._words
        kind = self._weighted(
            {"list": 28, "frequent": 22, "own": 16, "info": 10, "made": 18, "near": 2, "pseudo": 5}
        )
        if kind == "info":
            return self._pick(words.phrases.words.info), True
        if kind == "frequent":
            return self._pick(words.frequent), False
        if kind == "own":
            return self._pick(words.products), False
        if kind == "near":
            return self._pick(words.phrases.near.things), False
        if kind == "made":
            if self._zh:
                part = self._pick(words.parts)
                second = self._pick(words.parts) if self._chance(0.15) else ""
                return part + second + self._pick(words.phrases.words.heads), False
            noun = self._pick(words.nouns)
            return f"{self._pick(words.parts)} {noun.split(' ')[-1]}", False
        if kind == "pseudo" and not self._zh:
            return " ".join(self._syllables(1, 3) for _ in range(self._random.randint(1, 3))), False
        if kind == "pseudo":
            return self._pick(words.names) + self._pick(words.phrases.words.heads), False
        noun = self._pick(words.nouns)
        if not self._zh and self._chance(0.5):
            noun = singular(noun)
        return noun, False

    def _attribute(self) -> str:
        if self._chance(0.12):
            return self._pick(self._words.parts)
        return self._pick(self._words.attributes)

    def _brand(self) -> str:
        if self._zh and self._chance(0.7):
            return self._pick(self._words.names)
        draw = self._random.random()
        name = self._syllables()
        if draw < 0.25:
            return name.upper()
        if draw < 0.4:
            return f"{name.capitalize()} {self._syllables(1, 3).capitalize()}"
        if draw < 0.55 and not self._zh:
            return self._pick(self._words.parts).capitalize()
        return name.capitalize()

    def _model(self) -> str:
        random = self._random
        letters = "".join(random.choices("ABCDEFGHKLMNPRSTVXZ", k=random.randint(1, 3)))
        digits = str(random.randint(1, 99999))
        form = random.random()
        if form < 0.4:
            return f"{letters}{digits}"
        if form < 0.7:
            return f"{letters}-{digits}{self._pick(('', 'A', 'B', 'G', 'X', ' Pro', ' Plus'))}"
        return f"{digits}{letters}" if form < 0.85 else f"{self._syllables(1, 2)} {digits[:2]}"

    def _size(self) -> str:
        random = self._random
        number = random.choice((str(random.randint(1, 500)), f"{random.uniform(1, 99):.1f}"))
        if self._zh:
            unit = self._pick(("cm", "ml", "g", "kg", "米", "码", "寸", "L", "斤", "W", "mm", "GB"))
            end = self._pick(
                ("", "", f"*{random.randint(2, 12)}包", "装", f"x{random.randint(2, 9)}")
            )
            return f"{number}{unit}{end}"
        unit = self._pick(
            (" cm", "ml", '"', " inch", " oz", "GB", " L", " kg", "mm", " ft", "W", " TB")
        )
        start = self._pick(("", "", "", f"{random.randint(2, 24)} x ", "Size "))
        return f"{start}{number}{unit}"

    def _subject(self) -> Subject:
        noun, info = self._noun()
        a = self._attribute()
        b = self._attribute()
        return Subject(
            self._words.lang, noun, a, b, self._brand(), self._pick(self._words.uses),
            self._model(), self._size(), str(self._random.randint(2, 60)),
            self._noun()[0], self._noun()[0], info,
        )  # fmt: skip

    # Text --------------------------------------------------------------------------------------

    def _case(self, text: str) -> str:
        draw = self._random.random()
        if self._zh or draw < 0.45:
            return text
        if draw < 0.75:
            return " ".join(word[:1].upper() + word[1:] for word in text.split(" "))
        return text.upper() if draw < 0.8 else text[:1].upper() + text[1:]

    def _typo(self, text: str) -> str:
        return misspell(text, self._words.lang, self._random.random) if self._chance(0.04) else text

    def _filling(self, least: int, most: int) -> list[str]:
        return [self._pick(self._words.filling) for _ in range(self._random.randint(least, most))]

    def _sentence(self, subject: Subject) -> str:
        """The subject, as it is or with an attribute, among words of no meaning: what tells it is
        that it is the name of a thing."""
        s = subject
        name = s.fill(self._pick(("{n}", "{n}", "{a} {n}", "{n}", "{r} {n}", "{n} {u}")))
        before, after = self._filling(0, 5), self._filling(0, 5)
        parts = [*before, name, *after]
        if self._chance(0.3):
            parts += [s.n, *self._filling(0, 3)]
        if self._chance(0.25):
            parts.insert(self._random.choice((0, len(parts))), s.x)
        text = (" ".join(parts)).replace(" ", "") if self._zh else " ".join(parts)
        return self._case(text)

    def _specified(self, subject: Subject) -> str:
        """A title as shops of electronics write them: maker, model, thing, and a row of facts."""
        s = subject
        start = self._pick(("{r} {m} {n}", "{r} {n} {m}", "{r} {m} {a} {n}", "{n} {r} {m}"))
        specs = self._words.phrases.words.specs or (s.s, s.a, s.b, self._size(), self._model())
        facts = [self._pick(specs) for _ in range(self._random.randint(1, 7))]
        between = self._pick((" ", ", ", " "))
        return f"{self._case(s.fill(start))} {between.join(facts)}"

    def _title(self, subject: Subject) -> str:
        if self._chance(0.15 if self._zh else 0.35):
            return self._specified(subject)
        text = subject.fill(self._pick(self._words.phrases.titles.templates))
        if self._chance(0.15):
            end = (subject.x, subject.s, self._attribute(), subject.m, self._attribute())
            text = f"{text}{'' if self._zh and self._chance(0.5) else ' '}{self._pick(end)}"
        return self._case(text)

    def _caption(self, subject: Subject) -> str:
        titles = self._words.phrases.titles
        if self._chance(0.3):
            parts = [self._typo(self._sentence(subject))]
        else:
            parts = [self._case(self._typo(subject.fill(self._pick(titles.captions))))]
        if self._chance(0.3):
            parts.append(subject.fill(self._pick(titles.captions)))
        if self._chance(0.35):
            parts.insert(self._random.randint(0, 1), subject.fill(self._pick(titles.fillers)))
        end = (
            self._pick(("，", "。", " ", "！", "~"))
            if self._zh
            else self._pick((". ", ", ", "! ", " "))
        )
        return end.join(parts)

    def _tags(self, subject: Subject) -> str:
        """Hashtags; of the other language now and then."""
        if self._chance(0.55):
            return ""
        tags = (
            [subject.n.replace(" ", "" if self._chance(0.5) else "_")] if self._chance(0.6) else []
        )
        tags += [self._pick((subject.x, subject.a, subject.u)).replace(" ", "_")]
        if self._chance(0.3):
            mixed: tuple[str, ...] = (
                "ootd",
                "vlog",
                "diy",
                "asmr",
                "unboxing",
                "food",
                "travel",
                "fitness",
                "pets",
            )
            mixed = mixed if self._zh else ("日常", "穿搭", "美食", "开箱", "护肤", *mixed)
            tags.append(self._pick(mixed))
        self._random.shuffle(tags)
        return " ".join(f"#{tag}" for tag in tags)

    def _video(self, subject: Subject) -> VideoText:
        titles = self._words.phrases.titles
        style = self._weighted({"title": 34, "item": 14, "caption": 26, "full": 26})
        fields: dict[str, str] = {}
        if subject.info and style in ("title", "item"):
            style = "caption"
        if style == "title":
            fields[self._weighted({"title": 6, "item_title": 3, "caption": 1})] = self._title(
                subject
            )
        elif style == "item":
            fields = {"item_title": self._title(subject), "title": self._caption(subject)}
        elif style == "caption":
            line = f"{self._caption(subject)} {self._tags(subject)}".strip()
            fields[self._weighted({"title": 1, "caption": 1})] = line
        else:
            filler = subject.fill(self._pick(titles.fillers))
            fields["title"] = self._caption(subject) if self._chance(0.6) else filler
            fields["caption"] = f"{self._caption(subject)} {self._tags(subject)}".strip()
            if self._chance(0.4) and not subject.info:
                fields["item_title"] = self._title(subject)
            if self._chance(0.4):
                pieces = [
                    subject.fill(self._pick(titles.ocr)) for _ in range(self._random.randint(1, 3))
                ]
                fields["ocr"] = " | ".join(pieces)
            if self._chance(0.3):
                pieces = [
                    subject.fill(self._pick(titles.asr)) for _ in range(self._random.randint(1, 2))
                ]
                fields["asr"] = ", ".join(pieces)
        if self._chance(0.3):
            fields["author"] = subject.fill(self._pick(titles.authors))
        if self._chance(0.25):
            fields["summary"] = subject.fill(self._pick(titles.summaries))
        return _told(fields)

    # Queries -----------------------------------------------------------------------------------

    def _forms(self, s: Subject) -> dict[str, float]:
        """Queries about a subject, with how often people ask them."""
        n, last = s.n, s.n.split(" ")[-1]
        if s.info:
            forms = {n: 0.8, self._modified(n): 0.12}
            return forms if self._zh else {**forms, f"{n} for {s.u}": 0.05}
        if self._zh:
            forms = {
                n: 0.36, s.a + n: 0.17, s.b + n: 0.09, s.r + n: 0.09, s.u + n: 0.08, n + s.a: 0.05,
                s.r: 0.01, f"{s.r}{s.m}": 0.02, s.u + s.a + n: 0.04, s.a + s.b + n: 0.03,
                self._modified(n): 0.04,
            }  # fmt: skip
            for head in self._words.phrases.words.heads:
                if len(head) > 1 and n.endswith(head) and n != head:
                    forms[head] = 0.06
            return forms
        forms = {
            n: 0.36, f"{s.a} {n}": 0.15, f"{s.b} {n}": 0.08, f"{s.r} {n}": 0.08,
            f"{n} for {s.u}": 0.07, f"{s.r}": 0.01, f"{s.r} {s.m}": 0.03, f"{s.a} {s.b} {n}": 0.03,
            f"{s.a} {n} for {s.u}": 0.03, self._modified(n): 0.04, f"{s.u} {n}": 0.02,
        }  # fmt: skip
        if last != n:
            forms[last] = 0.12
            forms[f"{s.a} {last}"] = 0.04
        return forms

    def _modified(self, name: str) -> str:
        return self._pick(self._words.phrases.words.modifiers).replace("{q}", name)

    def _query(self, forms: dict[str, float], text: str) -> str:
        """One of the forms whose words stand in the text; nothing where none does."""
        grounded = {q: w for q, w in forms.items() if q and self._grounded(q, text)}
        return normalize_query(self._weighted(grounded)) if grounded else ""

    def _grounded(self, query: str, text: str) -> bool:
        query = query.lower()
        if not self._zh:
            return all(_has_word(text, word) for word in query.split() if word != "for")
        return all(pair in text for pair in pairs(query))

    def _anchors(self, subject: Subject, text: str) -> tuple[list[str], list[str]]:
        """Queries for A, and those of them about the subject."""
        forms = self._forms(subject)
        mine = [
            normalize_query(self._weighted(forms))
            for _ in range(self._random.choice((1, 1, 2, 3, 4)))
        ]
        others = [
            normalize_query(self._weighted(self._forms(self._subject())))
            for _ in range(self._random.choice((0, 0, 1, 2, 4)))
        ]
        every = mine + others
        if self._chance(0.4):
            self._random.shuffle(every)
        return list(dict.fromkeys(filter(None, every)))[:8], mine

    def _trigger(self, name: str) -> Trigger | None:
        if self._chance(FOREIGN):
            return self._foreign(name)
        subject = self._subject()
        if self._chance(REJECTS):
            return self._reject(name, subject)
        video = clean_video(self._video(subject))
        text = video_line(video)
        shown = text.encode()[:170].decode("utf-8", "ignore").lower()
        evidence = f"{shown} {video.summary.lower()[:60]}"
        anchors: list[str] = []
        target = ""
        if self._chance(ANCHORED):
            anchors, mine = self._anchors(subject, text)
            if self._chance(0.1):
                text, video = self._vague(subject), VideoText()
                target = anchors[0] if anchors else ""
            elif self._chance(0.55):
                target = mine[0] if self._chance(0.6) else self._pick(mine)
                if target not in anchors:
                    target = ""
            evidence = f"{evidence} | {' | '.join(anchors)}"
        history: list[str] = []
        if self._chance(WITH_HISTORY):
            own = self._forms(subject)
            of = [own if self._chance(0.7) else self._forms(self._subject()) for _ in range(2)]
            history = [normalize_query(self._weighted(forms)) for forms in of]
            history = list(dict.fromkeys(filter(None, history)))[: self._random.randint(1, 2)]
            if not target and history and self._chance(0.3) and subject.n.lower() in history[0]:
                target = history[0]
            evidence = f"{evidence} | {' | '.join(history)}"
        target = target or self._query(self._forms(subject), evidence)
        if not target:
            return None
        return Trigger(
            trigger_id=name, kind="click", ts=0.0, video_id=name, text=text,
            summary=video.summary, anchors=tuple(anchors), history=tuple(history), target=target,
        )  # fmt: skip

    def _vague(self, subject: Subject) -> str:
        """A text that tells nothing of the subject."""
        if self._chance(0.3):
            return ""
        return subject.fill(self._pick(self._words.phrases.titles.fillers))

    def _risk(self) -> str:
        risks = self._words.phrases.risks
        if self._chance(0.5):
            return self._pick(risks.texts)
        return self._pick(risks.templates).replace("{d}", self._pick(risks.subjects))

    def _reject(self, name: str, subject: Subject) -> Trigger:
        """Something that must not carry a query, dressed up or not, in any field."""
        titles = self._words.phrases.titles
        risk = self._risk()
        if self._chance(0.3):
            words = list(risk) if self._zh else risk.split(" ")
            if len(words) > 4:
                del words[self._random.choice((0, -1))]
            risk = ("" if self._zh else " ").join(words)
        if self._chance(0.25):
            risk = (
                f"{risk}{'，' if self._zh else ', '}{self._pick(self._words.phrases.risks.texts)}"
            )
        fields: dict[str, str] = {}
        if self._chance(0.35):
            fields["title"] = subject.fill(self._pick(titles.fillers))
        if self._chance(0.35):
            fields["caption"] = self._caption(subject) if self._chance(0.5) else self._tags(subject)
        if self._chance(0.2):
            fields["author"] = subject.fill(self._pick(titles.authors))
        place = self._weighted({"title": 4, "caption": 4, "ocr": 1, "asr": 1, "summary": 1})
        fields[place] = f"{self._case(risk)} {fields.get(place, '')}".strip()
        video = clean_video(_told(fields))
        anchors = self._anchors(subject, "")[0] if self._chance(0.2) else []
        return Trigger(
            trigger_id=name, kind="reject", ts=0.0, video_id=name, text=video_line(video),
            summary=video.summary, anchors=tuple(anchors), target=REJECT,
        )  # fmt: skip

    def _foreign(self, name: str) -> Trigger:
        """Words of random letters in a script of no list, and a run of them as the query."""
        first, last, space = self._pick(_SCRIPTS)
        letters = [chr(code) for code in range(ord(first), ord(last) + 1)]
        if self._chance(0.15):
            letters, space = list(_VIETNAMESE), " "
        words = [
            "".join(self._random.choices(letters, k=self._random.randint(2, 6 if space else 4)))
            for _ in range(self._random.randint(2, 7))
        ]
        at = self._random.randrange(len(words))
        query = space.join(words[at : at + self._random.choice((1, 2, 2, 3))])
        anchors = [query] if self._chance(0.3) else []
        text = clean_video(VideoText(title=space.join(words))).title
        return Trigger(
            trigger_id=name, kind="click", ts=0.0, video_id=name, text=text,
            anchors=tuple(anchors), target=normalize_query(query),
        )  # fmt: skip


def _told(fields: dict[str, str]) -> VideoText:
    return msgspec.convert(fields, VideoText)


def pairs(text: str) -> list[str]:
    """The two-character runs of a text without spaces; itself where it is one character."""
    packed = re.sub(r"\s", "", text)
    return [packed[at : at + 2] for at in range(max(1, len(packed) - 1))]


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", text) is not None


def singular(noun: str) -> str:
    """An English noun in the singular, as far as a rule of thumb goes."""
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    if noun.endswith(("ches", "shes", "sses", "xes")):
        return noun[:-2]
    if noun.endswith("s") and not noun.endswith(("ss", "us", "is")):
        return noun[:-1]
    return noun
