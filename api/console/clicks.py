"""How often shown queries are tapped, by whose words they are; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from msgspec import Struct

from onebar.evidence.words import words
from onebar.recommending.grounding import Ground
from onebar.recommending.material import material
from onebar.records import Features, QueryCounts

Whose = Literal["video", "both", "people"]


class ClickRate(Struct, frozen=True):
    """Shown queries all of whose words the video's own text has (`video`), some (`both`) or none
    (`people`: they come from what was searched, or from the model). `rate` is clicks per exposure,
    None where nothing was shown."""

    whose: Whose
    queries: int
    exposures: int
    clicks: int
    engagements: int
    rate: float | None


def click_rates(
    videos: Iterable[tuple[Features, Mapping[str, QueryCounts]]],
) -> list[ClickRate]:
    """The sums over these videos, with what each of their queries came to."""
    sums: dict[Whose, list[int]] = {"video": [0] * 4, "both": [0] * 4, "people": [0] * 4}
    for known, counts in videos:
        ground = Ground(material(known, ()).texts())
        for query, count in counts.items():
            if not count.exposures:
                continue
            found = sums[whose_words(query, ground)]
            for at, more in enumerate((1, count.exposures, count.clicks, count.engagements)):
                found[at] += more
    return [
        ClickRate(
            whose, queries, exposures, clicks, engaged, clicks / exposures if exposures else None
        )
        for whose, (queries, exposures, clicks, engaged) in sums.items()
    ]


def whose_words(query: str, ground: Ground) -> Whose:
    """Whether the words of a query that say something stand in a text."""
    every = words(query)
    said = [word for word in every if not word.function] or every
    touched = sum(map(ground.touches, said))
    return "people" if not touched else "video" if touched == len(said) else "both"
