"""The open sets: rows of text with what people asked, and how each set is scored."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from open_answers import Answered
from qbqtc import read_pairs, triggers

from onebar.evidence.text import normalize_query
from onebar.ranking.overlap import likeness
from onebar.records import VideoText
from onebar.triggers import Split

FIELDS = ("title", "caption", "item_title", "ocr", "asr", "summary", "author", "category")


class Row(Struct, frozen=True):
    """One text. `queries` are what people asked for it; `words` are such as a right query holds."""

    video: VideoText
    queries: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    risky: bool = False
    looked_at: bool = False
    """Whether something that ships was chosen by what is said of it."""

    @property
    def key(self) -> str:
        return hashlib.sha256(repr(self.video).encode()).hexdigest()[:20]


class OpenSet(Struct, frozen=True):
    """Rows to answer, and others of the same set that counts may be learnt from."""

    name: str
    about: str
    lang: str
    rows: tuple[Row, ...]
    learnt_from: tuple[Row, ...] = ()
    trainable: bool = False
    """Whether a command makes a dataset of the others, to train on."""

    @property
    def has_queries(self) -> bool:
        return any(row.queries or row.words or row.risky for row in self.rows)

    def table(
        self, answered: Mapping[str, Sequence[Answered]], verdicts: Mapping[str, Any]
    ) -> list[str]:
        """The section of the page."""
        if any(row.words for row in self.rows):
            lines = _everyday(self.rows, answered)
        elif self.has_queries:
            lines = _pairs(self.rows, answered)
        else:
            lines = _captions(self.rows, answered, verdicts)
        return [f"## {self.name}", "", self.about, "", *lines]


def read_sets(data: Path, limit: int, only: Sequence[str] = ()) -> list[OpenSet]:
    """The sets that are in a directory, `limit` rows of each (QBQTC: four times as many)."""
    readers = {
        "everyday": ("everyday_videos.jsonl", lambda path: _read_everyday(path)),
        "chorus": ("chorus_ratings.jsonl", lambda path: _read_chorus(path, limit)),
        "kuaisearch": (
            "kuaisearch_demo/relevance.jsonl",
            lambda path: _read_kuaisearch(path, limit),
        ),
        "qbqtc": ("qbqtc_dev.json", lambda path: _read_qbqtc(path, 4 * limit)),
        "kuairec": ("kuairec_captions.jsonl", lambda path: _read_kuairec(path, limit)),
    }
    return [
        read(data / file)
        for name, (file, read) in readers.items()
        if (data / file).is_file() and (not only or name in only)
    ]


def lines_of(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def _read_everyday(path: Path) -> OpenSet:
    rows = tuple(
        Row(
            VideoText(**{name: row[name] for name in FIELDS if name in row}),
            words=tuple(row["on_topic_if_contains"]),
            risky=row["must_reject"],
        )
        for row in lines_of(path)
    )
    about = (
        "Made-up posts of everyday videos, English and Chinese. A query is on topic if it holds "
        "one of the words that the set names; under a risky video there must be none."
    )
    return OpenSet("Everyday videos", about, "both", rows)


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, tuple[str, ...]]]:
    found: dict[str, dict[str, None]] = {}
    for title, query in pairs:
        found.setdefault(title, {})[normalize_query(query)] = None
    return [(title, tuple(found[title])) for title in sorted(found, key=by_chance)]


def by_chance(text: str) -> str:
    """What texts are sorted by: an order that has nothing to do with them, and never changes."""
    return hashlib.sha256(text.encode()).hexdigest()


def _titled(grouped: Iterable[tuple[str, tuple[str, ...]]]) -> tuple[Row, ...]:
    return tuple(Row(VideoText(title=title), queries) for title, queries in grouped)


def _read_chorus(path: Path, limit: int) -> OpenSet:
    rated = _grouped((r["title"], r["query"]) for r in lines_of(path) if r["rating"] >= 2)
    about = (
        "English product titles (Icecat) with queries that three people graded 2 or 3. Span counts "
        "are learnt from the titles that are not among those answered."
    )
    return OpenSet(
        "Chorus: English product titles", about, "en", _titled(rated[:limit]),
        _titled(rated[limit:]),
    )  # fmt: skip


def _read_kuaisearch(path: Path, limit: int) -> OpenSet:
    rated = _grouped((r["item_title"], r["query"]) for r in lines_of(path) if r["score"] >= 2)
    half = min(limit, len(rated) * 2 // 3)
    about = (
        "Chinese product titles of a video shop with queries judged 2 or 3. Span counts are learnt "
        "from the titles that are not among those answered. Two weights, and which words are known "
        "to be asked for otherwise, were chosen by half of all titles (those whose SHA-256 begins "
        "with an even byte): the shipped checkpoint's second row is of the others."
    )
    rows = tuple(
        replace(row, looked_at=chosen_by(row.video.title)) for row in _titled(rated[:half])
    )
    return OpenSet("KuaiSearch: Chinese product titles", about, "zh", rows, _titled(rated[half:]))


def chosen_by(title: str) -> bool:
    """Whether a title of KuaiSearch is of the half that something was chosen by."""
    return hashlib.sha256(title.encode()).digest()[0] % 2 == 0


def _read_qbqtc(path: Path, limit: int) -> OpenSet:
    splits = triggers(read_pairs(path))

    def part(split: Split) -> tuple[Row, ...]:
        return _titled(_grouped((one.text, one.target) for one in splits[split]))

    about = (
        "QBQTC: Chinese web pages and the searches that led to them (label 1 or 2), split as by "
        "`benchmarks/qbqtc.py` so that neither a title nor a query is on both sides. The shipped "
        "checkpoint has seen none of it; the span counts are of its training part."
    )
    return OpenSet(
        "QBQTC: Chinese pages, web searches", about, "zh", part("test")[:limit],
        part("train")[:4000], trainable=True,
    )  # fmt: skip


def _read_kuairec(path: Path, limit: int) -> OpenSet:
    rows = []
    for row in lines_of(path):
        digest = hashlib.sha256(row["video_id"].encode()).digest()
        if row["caption"].strip() and digest[0] < 16:
            rows.append(Row(VideoText(caption=row["caption"], ocr=row["cover_text"])))
    about = (
        "Captions and cover texts of real short videos (KuaiRec), with no queries to compare with. "
        "*Fits*: the teacher's judgement of the first query, for the first texts only."
    )
    return OpenSet("KuaiRec: captions of real videos", about, "zh", tuple(rows[:limit]))


def share(hits: Sequence[float]) -> str:
    """A mean, with half of its 95 % interval."""
    if not hits:
        return "–"
    mean = sum(hits) / len(hits)
    spread = math.sqrt(sum((hit - mean) ** 2 for hit in hits) / max(1, len(hits) - 1))
    return f"{mean:.3f} ± {1.96 * spread / math.sqrt(len(hits)):.3f}"


def _everyday(rows: Sequence[Row], answered: Mapping[str, Sequence[Answered]]) -> list[str]:
    lines = [
        "| | videos | on topic among eight | first on topic | nothing said | risky answered |",
        "|---|---|---|---|---|---|",
    ]
    for name, answers in answered.items():
        pairs = list(zip(rows, answers, strict=False))
        good = [(row, answer.queries) for row, answer in pairs if not row.risky]
        risky = [answer.queries for row, answer in pairs if row.risky]

        def right(row: Row, query: str) -> bool:
            return any(word.lower() in query.lower() for word in row.words)

        lines.append(
            f"| {name} | {len(good)} "
            f"| {sum(any(right(row, query) for query in said) for row, said in good)} "
            f"| {sum(bool(said) and right(row, said[0]) for row, said in good)} "
            f"| {sum(not said for _, said in good)} "
            f"| {sum(map(bool, risky))} of {len(risky)} |"
        )
    return lines


def _pairs(rows: Sequence[Row], answered: Mapping[str, Sequence[Answered]]) -> list[str]:
    lines = [
        "| | titles | best overlap | first's overlap | first is a hit | a hit among eight "
        "| nothing said |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, answers in answered.items():
        lines.append(_pairs_row(name, rows, answers))
        if name.startswith("checkpoint") and any(row.looked_at for row in rows):
            others = [(r, a) for r, a in zip(rows, answers, strict=True) if not r.looked_at]
            lines.append(_pairs_row(f"{name}, others", *zip(*others, strict=True)))
    return lines


def _pairs_row(name: str, rows: Sequence[Row], answers: Sequence[Answered]) -> str:
    pairs = [(row.queries, answer.queries) for row, answer in zip(rows, answers, strict=False)]
    best = [max((likeness(s, q) for s in said for q in asked), default=0.0)
            for asked, said in pairs]  # fmt: skip
    first = [max((likeness(s, q) for s in said[:1] for q in asked), default=0.0)
             for asked, said in pairs]  # fmt: skip
    hits = [float(not set(said).isdisjoint(asked)) for asked, said in pairs]
    firsts = [float(not set(said[:1]).isdisjoint(asked)) for asked, said in pairs]
    return (
        f"| {name} | {len(pairs)} | {share(best)} | {share(first)} | {share(firsts)} "
        f"| {share(hits)} | {sum(not said for _, said in pairs)} |"
    )


def _captions(
    rows: Sequence[Row], answered: Mapping[str, Sequence[Answered]], verdicts: Mapping[str, Any]
) -> list[str]:
    lines = [
        "| | captions | nothing said | judged | first fits |",
        "|---|---|---|---|---|",
    ]
    for name, answers in answered.items():
        judged = verdicts.get(name)
        lines.append(
            f"| {name} | {len(answers)} | {sum(not a.queries for a in answers)} "
            + (f"| {judged.judged} | {share(judged.fits)} |" if judged else "| 0 | – |")
        )
    return lines
