"""What a rule would have held back: the queries shown in an archive's last days, asked again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from msgspec import Struct

from onebar.evidence.text import normalize_query
from onebar.gating.rules import About, RuleBook
from onebar.records import Rule
from stream.archive.reader import Archive


class DryRun(Struct, frozen=True):
    """`held` of `shown` queries would not have been shown, on `days` of the archive; the `queries`
    shown most among them, each with how often it was."""

    days: Sequence[str]
    shown: int
    held: int
    queries: Sequence[tuple[str, int]]


def dry_run(
    archive: Archive, rules: Sequence[Rule], *, days: int = 1, most: int = 20, market: str = ""
) -> DryRun:
    """What these rules alone would have done on the archive's last days."""
    book = RuleBook(rules, market=market)
    wanted = archive.days()[-1:] if days == 1 else archive.days()
    if days > 1 and wanted:
        wanted = [day for day in wanted if day > wanted[-1] - timedelta(days=days)]
    abouts = _abouts(archive) if book.asks_about else {}
    shown = 0
    held: Counter[str] = Counter()
    for row in _rows(archive, "exposure", ("video_id", "ts", "queries"), wanted):
        video_id = row["video_id"]
        about = abouts.get(video_id, About(video_id))
        barred = book.barred(about, row["ts"]) is not None
        for item in row["queries"]:
            shown += 1
            query = normalize_query(item["query"])
            if barred or book.decide(query, about, row["ts"]).held:
                held[query] += 1
    top = sorted(held.items(), key=lambda pair: (-pair[1], pair[0]))[:most]
    return DryRun([str(day) for day in wanted], shown, held.total(), top)


def _abouts(archive: Archive) -> dict[str, About]:
    newest: dict[str, tuple[float, About]] = {}
    names = ("video_id", "ts", "author", "category")
    for row in _rows(archive, "video", names, archive.days()):
        known = newest.get(row["video_id"])
        if known is None or row["ts"] >= known[0]:
            about = About(row["video_id"], row["author"] or "", row["category"] or "")
            newest[row["video_id"]] = row["ts"], about
    return {video_id: about for video_id, (_, about) in newest.items()}


def _rows(
    archive: Archive, kind: str, columns: Sequence[str], days: Sequence[Any]
) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for day in days:
        directory: Path = archive.path / "events" / f"type={kind}" / f"date={day}"
        for path in sorted(directory.glob("*.parquet")):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=list(columns)):
                    yield from batch.to_pylist()
