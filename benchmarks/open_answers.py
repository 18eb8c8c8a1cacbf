"""Who answers an open set: a checkpoint as it serves, and what it is compared with."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from onebar.evidence.text import clean_video, normalize_query
from onebar.process.console import Update, say
from onebar.ranking.overlap import likeness
from onebar.records import VideoText
from onebar.teaching.answers import read_answer
from onebar.teaching.checks import check_of
from onebar.teaching.journal import Journal
from onebar.teaching.lessons import TeacherGoneError, ask_all, question_key
from onebar.teaching.prompt import read_prompt
from onebar.teaching.rows import evidence_of
from onebar.teaching.teach import TeachConfig
from onebar.teaching.teacher import Teacher

if TYPE_CHECKING:
    from open_texts import OpenSet, Row

LONGEST_SPAN = 14
"""Units of a span: words, or characters of Chinese."""
LONGEST_TITLE = 60
CHUNK = 50
"""Texts that an engine is given together."""

_UNIT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_HAN = re.compile(r"[\u3400-\u9fff]")


class Answered(Struct, frozen=True):
    """What was said of a row, best first."""

    key: str
    queries: tuple[str, ...]


def checkpoint_answers(path: Path, rows: Sequence[Row], k: int, update: Update) -> list[Answered]:
    """A checkpoint as serving runs it: prompt, beam, choice among all candidates."""
    from onebar.evidence.prompt import build_prompt
    from onebar.generator.checkpoint import open_checkpoint
    from onebar.generator.load import load_engine
    from onebar.recommending.candidates import choose
    from onebar.recommending.loading import open_taste
    from onebar.recommending.material import Material

    opened = open_checkpoint(path)
    engine = load_engine(opened, beam_size=k)
    taste = open_taste(opened)
    found: list[Answered] = []
    for at in range(0, len(rows), CHUNK):
        chunk = rows[at : at + CHUNK]
        videos = [clean_video(row.video) for row in chunk]
        prompts = [build_prompt(evidence_of(video), opened.card.prompt) for video in videos]
        for row, video, beam in zip(chunk, videos, engine.generate(prompts, k), strict=True):
            chosen = choose(Material(video), beam, k, taste)
            found.append(Answered(row.key, tuple(query.text for query in chosen.queries)))
        update(len(found) / len(rows), f"{len(found):,} of {len(rows):,}")
    engine.close()
    return found


def titles(rows: Sequence[Row]) -> list[Answered]:
    """The most telling field as one query."""
    return [Answered(row.key, (normalize_query(headline(row.video)),)) for row in rows]


def headline(video: VideoText) -> str:
    return video.item_title or video.title or video.caption or video.ocr


def whole_text(video: VideoText) -> str:
    parts = (video.item_title, video.title, video.caption, video.summary, video.ocr, video.asr)
    return ". ".join(part for part in parts if part)


def keywords(rows: Sequence[Row], k: int) -> list[Answered]:
    """YAKE's keywords where the text is in an alphabet, noun spans by jieba where it is Chinese."""
    import yake

    english = yake.KeywordExtractor(lan="en", n=3, top=k)
    found = []
    for row in rows:
        text = whole_text(clean_video(row.video))
        if _HAN.search(text):
            queries = noun_spans(text, k)
        else:
            queries = [word for word, _ in english.extract_keywords(text)] if text else []
        found.append(Answered(row.key, tuple(dict.fromkeys(map(normalize_query, queries)))[:k]))
    return found


def noun_spans(text: str, k: int) -> list[str]:
    """Nouns with the word before them, and nouns alone, in the order of the text."""
    import rjieba

    tagged = [(word.strip(), tag) for word, tag in rjieba.tag(text)]
    found: dict[str, None] = {}
    for at, (word, tag) in enumerate(tagged):
        if tag[0] != "n" or len(word) < 2:
            continue
        before, kind = tagged[at - 1] if at else ("", "x")
        if before and kind[0] in "navm":
            found[before + word] = None
        found[word] = None
    return list(found)[:k]


def units(text: str) -> list[tuple[int, int]]:
    """Where the words of a text are; a Chinese character is one."""
    return [match.span() for match in _UNIT.finditer(text)][:LONGEST_TITLE]


def spans(text: str) -> Iterator[tuple[int, int, str]]:
    """(first unit, units, text) of every span of a normalised title."""
    places = units(text)
    for first in range(len(places)):
        for last in range(first, min(first + LONGEST_SPAN, len(places))):
            yield first, last - first + 1, text[places[first][0] : places[last][1]]


def likeliest_spans(each: OpenSet, k: int) -> list[Answered]:
    """Spans by how often a span at this place, of this length, was the one nearest to a query.

    A query that is a span itself counts as one, another by the square of its best overlap.
    """
    counts: dict[tuple[int, int], float] = defaultdict(float)
    for row in each.learnt_from:
        title = normalize_query(headline(row.video))
        for query in row.queries:
            best, first, length = max(
                ((likeness(span, query), -first, -length) for first, length, span in spans(title)),
                default=(0.0, 0, 0),
            )
            counts[-first, -length] += best**2
    found = []
    for row in each.rows:
        title = normalize_query(headline(row.video))
        ranked = sorted(spans(title), key=lambda span: (-counts[span[:2]], span[:2]))
        queries = dict.fromkeys(text for _, _, text in ranked)
        found.append(Answered(row.key, tuple(queries)[:k]))
    return found


def teacher_answers(
    teacher: Teacher,
    journal: Journal,
    rows: Sequence[Row],
    patience_s: float,
    update: Update,
) -> list[Answered]:
    """What `onebar teach` would keep of a teacher's answers.

    Where it goes away for good, the rows before the first that it has not answered.
    """
    count = TeachConfig().count
    prompt = read_prompt()
    videos = {row.key: clean_video(row.video) for row in rows}
    keys = {key: question_key(video, prompt, teacher.name, count) for key, video in videos.items()}
    try:
        ask_all(
            {keys[key]: video for key, video in videos.items()},
            teacher,
            prompt,
            journal,
            count=count,
            workers=4,
            patience_s=patience_s,
            told=lambda s: update(s.done / max(1, s.videos), f"{s.done} of {s.videos}"),
        )
    except TeacherGoneError as error:
        say(str(error))
    found = []
    for row in rows:
        lesson = journal.get(keys[row.key])
        if lesson is None:
            break
        answer = read_answer(lesson.said, check_of(evidence_of(videos[row.key])), count=count)
        found.append(Answered(row.key, answer.queries))
    return found
