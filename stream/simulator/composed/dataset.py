"""Composed triggers as a dataset, with what a teacher said of made-up videos where it is there."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from onebar.evidence.evidence import video_line
from onebar.evidence.text import REJECT, clean_video, normalize_query
from onebar.records import VideoText
from onebar.triggers import Trigger
from stream.simulator.composed.phrases import DATA
from stream.simulator.composed.videos import Composer
from stream.simulator.composed.words import chinese, english

TAUGHT = DATA / "taught.jsonl.gz"
"""What `onebar teach` wrote for composed captions: rows of text, queries and reject."""


def composed(words: Path, count: int, *, seed: int, held_out: bool = False) -> Iterator[Trigger]:
    """`count` triggers of each language in turn, from the word lists in the directory `words`.
    With `held_out` their things are those that no others are about."""
    composers = (Composer(read(words, held_out=held_out), seed) for read in (english, chinese))
    streams = [composer.triggers(count, prefix=f"c{seed}") for composer in composers]
    for together in zip(*streams, strict=True):
        yield from together


def taught(path: Path = TAUGHT, *, times: int = 1) -> Iterator[Trigger]:
    """One trigger for each query that the teacher gave a video, or its reject, `times` over."""
    if not path.is_file():
        return
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    for turn in range(times):
        for at, row in enumerate(rows):
            video = clean_video(
                VideoText(
                    **{name: row.get(name, "") for name in ("title", "caption", "item_title")}
                )
            )
            targets = [REJECT] if row["reject"] else [*map(normalize_query, row["queries"])]
            for number, target in enumerate(filter(None, targets)):
                yield Trigger(
                    trigger_id=f"t{turn}-{at}-{number}",
                    kind="reject" if row["reject"] else "click",
                    ts=0.0,
                    video_id=f"t{at}",
                    text=video_line(video),
                    target=target,
                )


def texts(triggers: Iterable[Trigger], count: int) -> Iterator[str]:
    """Texts and queries of the first triggers, for the tokenizer."""
    for trigger in islice(triggers, count):
        yield trigger.text
        yield trigger.target
