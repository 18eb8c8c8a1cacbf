"""Videos as people post them, of many domains: what a bar says of their text alone.

The texts were made up for this, and nothing is trained on them. Shares are held, so that another
fit of the ranker may be of another opinion on one or the other.
"""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from onebar.evidence.text import clean_video
from onebar.evidence.words import words
from onebar.recommending.candidates import choose
from onebar.recommending.material import Material
from onebar.recommending.phrases.names import measures, role
from onebar.records import VideoText

_FILE = Path(__file__).with_name("everyday.jsonl")


@lru_cache(maxsize=1)
def _lists() -> list[tuple[dict[str, str], list[str], list[str]]]:
    rows = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
    found = []
    for row in rows:
        about = row.pop("about")
        shown = choose(Material(clean_video(VideoText(**row))), (), 8).queries
        found.append((row, about, [query.text for query in shown]))
    return found


def _on_topic(about: list[str], query: str) -> bool:
    return any(word in query for word in about)


def test_nearly_every_video_gets_a_query_and_the_first_is_on_topic() -> None:
    lists = _lists()
    first = sum(bool(shown) and _on_topic(about, shown[0]) for _, about, shown in lists)
    among = sum(any(_on_topic(about, one) for one in shown) for _, about, shown in lists)
    assert sum(not shown for _, _, shown in lists) <= 0.04 * len(lists)
    assert among >= 0.95 * len(lists)
    assert first >= 0.8 * len(lists)


def test_each_is_whole() -> None:
    for row, _, shown in _lists():
        title = words(row["title"])
        counted = {one.key for one, next_ in pairwise(title) if next_.key in measures()}
        for query in shown:
            found = words(query)
            first, last = found[0], found[-1]
            assert not first.function, (row, query)
            assert not last.function, (row, query)
            assert len(found) > 1 or first.key not in measures(), (row, query)
            assert not all(role(word) and role(word) in "vptjf" for word in found), (row, query)
            assert last.tag != "m" or last.key not in counted, (row, query)
