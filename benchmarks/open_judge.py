"""Whether a query fits a text, by a teacher; and how often the teacher judges rightly."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from msgspec import Struct
from open_answers import Answered
from open_texts import Row, lines_of, share

from onebar.evidence.text import clean_video
from onebar.process.console import Update
from onebar.records import VideoText
from onebar.teaching.journal import Journal, Lesson
from onebar.teaching.prompt import describe
from onebar.teaching.teacher import Message, Teacher

PROMPT = (
    Message(
        "system",
        "You judge search suggestions. Answer yes if the search is about the main thing of the "
        "post, else no. One word.",
    ),
    Message("user", "Title: Braun hand mixer, 5 speeds, 450 W\nSearch: electric mixer"),
    Message("assistant", "yes"),
    Message("user", "Title: 今天带金毛去游泳，下水就不肯上来\nSearch: 猫砂"),
    Message("assistant", "no"),
    Message("user", "Title: 免打孔遮光窗帘卧室简约北欧风\nSearch: 遮光窗帘"),
    Message("assistant", "yes"),
    Message("user", "Title: Garden hose 50 ft with spray nozzle\nSearch: pressure cooker"),
    Message("assistant", "no"),
)


class Verdicts(Struct, frozen=True):
    """`fits` has 1 for each query judged to fit, 0 for each that isn't."""

    judged: int
    fits: list[float]


class Judge:
    """Asks a teacher yes or no, one pair after another; what it said is kept."""

    def __init__(self, teacher: Teacher, journal: Journal) -> None:
        self._teacher = teacher
        self._journal = journal

    def fits(self, video: VideoText, query: str) -> bool:
        about = f"{describe(clean_video(video))}\nSearch: {query}"
        asked = "\0".join((self._teacher.name, *(turn.content for turn in PROMPT), about))
        key = "judge-" + hashlib.sha256(asked.encode()).hexdigest()[:26]
        lesson = self._journal.get(key)
        if lesson is None:
            reply = self._teacher.ask([*PROMPT, Message("user", about)])
            lesson = Lesson(key, reply.text, reply.prompt_tokens, reply.completion_tokens)
            self._journal.add(lesson)
        return lesson.said.strip().casefold().startswith(("yes", "是"))

    def first_queries(self, pairs: Sequence[tuple[Row, Answered]], update: Update) -> Verdicts:
        """Of texts that got a query: whether the first one fits. Raises `TeacherAwayError`."""
        asked = [(row, answer) for row, answer in pairs if answer.queries]
        found = []
        for at, (row, answer) in enumerate(asked):
            found.append(float(self.fits(row.video, answer.queries[0])))
            update((at + 1) / len(asked), f"{at + 1} of {len(asked)}")
        return Verdicts(len(found), found)


def judged_pairs(data: Path, judge: Judge, sample: int) -> list[str]:
    """How often the teacher says yes to pairs that people graded best, and to those graded 0."""
    graded = [
        ("Chorus", data / "chorus_ratings.jsonl", "title", "rating"),
        ("KuaiSearch", data / "kuaisearch_demo" / "relevance.jsonl", "item_title", "score"),
    ]
    lines = [
        "## The judge",
        "",
        "How often the teacher says that a query fits, for pairs that people graded. The more of "
        "those graded 0, the less it tells that a query fits by it.",
        "",
        "| | pairs of each | graded 3 | graded 0 |",
        "|---|---|---|---|",
    ]
    for name, path, title, grade in graded:
        if not path.is_file():
            continue
        rows = list(lines_of(path))
        said = [
            [
                float(judge.fits(VideoText(title=row[title]), row["query"]))
                for row in spread(rows, grade, wanted)[: sample // 2]
            ]
            for wanted in (3, 0)
        ]
        lines.append(f"| {name} | {len(said[0])} | {share(said[0])} | {share(said[1])} |")
    return lines


def spread(rows: Iterable[dict[str, object]], grade: str, wanted: int) -> list[dict[str, object]]:
    """The rows of a grade in an order that is by chance, and always the same."""

    def place(row: dict[str, object]) -> str:
        return hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()

    return sorted((row for row in rows if row[grade] == wanted), key=place)
