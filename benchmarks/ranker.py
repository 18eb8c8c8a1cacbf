"""The shipped ranker: learns its weights, and measures them on texts that were held back.

    onebar simulate --out simulated.jsonl.zst --events 120000 --seed 11
    onebar archive --out simulated --log simulated.jsonl.zst
    onebar dataset simulated --out data/simulated --limit 6000
    python benchmarks/ranker.py --dataset data/simulated [--teacher rows.jsonl] [--out FILE]

What phrases are worth is learned from `onebar/recommending/data/asked.jsonl` (titles and videos
made up for this, each with what people would ask), from a teacher's rows where there are any, and a
little from a simulated dataset; what beam, anchors and history are worth from that dataset and the
beams of the shipped checkpoint. Prints, by cross-validation over the made-up texts, English,
Chinese and others, how near the eight queries come (overlap: F1 of character pairs) to the nearest
of what would be asked, how near to each of it, and how near the first comes; and on the test part
of the dataset HR@1 and HR@8 of the beam alone and of the list; then the time of a list.

    python benchmarks/ranker.py --go-on [--lengths queries.txt]

changes the weights that there are by the texts of more `weight`, titles of shops as people ask for
them, in minutes; one in `SOME` of the others keeps what they have taught. With `--lengths`, a file
of queries that people typed in a shop, one a line, those of a title of a shop count so that their
lengths come half way to the lengths of these.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from math import sqrt
from pathlib import Path
from typing import NamedTuple

from onebar.evidence.evidence import HAN_CHARACTER, Evidence, video_line
from onebar.evidence.prompt import build_prompt
from onebar.evidence.scripts import HIRAGANA, KATAKANA
from onebar.evidence.text import clean_video
from onebar.gating.risk import shipped_rules
from onebar.generator.checkpoint import Checkpoint, open_checkpoint
from onebar.generator.load import load_engine
from onebar.learning.phrases import (
    Example,
    even_shares,
    learn_more,
    learn_phrases,
    learn_sources,
)
from onebar.ranking.overlap import likeness
from onebar.recommending.candidates import choose
from onebar.recommending.material import Material, told
from onebar.recommending.phrases.spans import fields
from onebar.recommending.pool import Taste
from onebar.recommending.ranker import SHIPPED, Ranker
from onebar.records import Candidate, VideoText
from onebar.triggers import Trigger, open_dataset

ASKED = SHIPPED.with_name("asked.jsonl")
FOLDS = 4
BEAMS = 3
"""The checkpoint generates for one in so many of the texts: sources have few weights."""
SOME = 3
"""`--go-on` learns from one in so many of the texts that it knows."""
CHANGE = 6.0
"""L2 of what `--go-on` changes: less of it, and captions lose what titles of shops gain."""
SHORTEST, LONGEST = 3, 12
"""Characters of queries whose lengths are told apart."""
RARE = 0.005
"""A share that every length has at least."""
SIMULATED = 600
SIMULATED_WEIGHT = 0.1


def read_rows(path: Path) -> list[Example]:
    """Rows with text fields and `queries`, and how much each counts where it isn't 1; those that a
    teacher rejects are passed over."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        Example(
            Material(clean_video(VideoText(**{f: r[f] for f in _FIELDS if r.get(f)}))),
            tuple(r["queries"]),
            weight=r.get("weight", 1.0),
        )
        for r in rows
        if r["queries"]
    ]


_FIELDS = ("title", "caption", "item_title")


def with_beams(checkpoint: Checkpoint, examples: Sequence[Example]) -> list[Example]:
    """The same with what the checkpoint generates for each."""
    engine = load_engine(checkpoint, beam_size=8)
    prompts = [build_prompt(_evidence(one.material), checkpoint.card.prompt) for one in examples]
    beams = [
        beam
        for at in range(0, len(prompts), 64)
        for beam in engine.generate(prompts[at : at + 64], 8)
    ]
    engine.close()
    return [
        Example(one.material, one.queries, tuple(beam), one.weight)
        for one, beam in zip(examples, beams, strict=True)
    ]


def _evidence(material: Material) -> Evidence:
    anchors = tuple(anchor.query for anchor in material.anchors)
    video = material.video
    return Evidence(video_line(video), video.summary, anchors, material.history)


def clicks(triggers: Iterable[Trigger], most: int, weight: float = 1.0) -> list[Example]:
    return [Example(told(t.evidence), (t.target,), (), weight) for t in islice(triggers, most)]


class Overlaps(NamedTuple):
    """Of the eight with what would be asked."""

    nearest: float
    each: float
    first: float


def of_text(ranker: Ranker, one: Example) -> Overlaps:
    shown = [query.text for query in choose(one.material, (), 8, _taste(ranker)).queries]
    near = [max((likeness(text, query) for text in shown), default=0.0) for query in one.queries]
    first = max(likeness(shown[0], query) for query in one.queries) if shown else 0.0
    return Overlaps(max(near), sum(near) / len(near), first)


def language(one: Example) -> str:
    """Which of the groups that are reported a text belongs to, by its script."""
    text = " ".join(one.material.texts())
    if HAN_CHARACTER.search(text) and not _KANA.search(text):
        return "Chinese"
    return "English" if all(ord(char) < 0xC0 or ord(char) > 0x2000 for char in text) else "others"


_KANA = re.compile(f"[{HIRAGANA}{KATAKANA}]")


def _taste(ranker: Ranker) -> Taste:
    return Taste(ranker, shipped_rules())


def hits(lists: Sequence[Sequence[Candidate]], examples: Sequence[Example]) -> tuple[float, float]:
    """HR@1 and HR@8."""
    texts = [[candidate.text for candidate in found] for found in lists]
    at_1 = sum(found[:1] == [one.queries[0]] for found, one in zip(texts, examples, strict=True))
    at_8 = sum(one.queries[0] in found[:8] for found, one in zip(texts, examples, strict=True))
    return at_1 / len(examples), at_8 / len(examples)


def length(query: str) -> int:
    """Characters without white space; few are as good as fewer, and many as more."""
    return min(LONGEST, max(SHORTEST, len("".join(query.split()))))


def is_shops(example: Example) -> bool:
    """Whether a text is a Chinese title that piles up words."""
    found = fields(example.material.video)
    return language(example) == "Chinese" and bool(found) and not found[0].prose


def by_length(examples: Sequence[Example], typed: Sequence[str]) -> list[Example]:
    """The same, the queries of titles of shops counting more or less, so that as many of each
    length are asked as the geometric mean of how many are now and how many are `typed`."""
    shares = [even_shares(len(one.queries)) for one in examples]
    asked: Counter[int] = Counter()
    for one, each in zip(examples, shares, strict=True):
        if is_shops(one):
            for query, share in zip(one.queries, each, strict=True):
                asked[length(query)] += one.weight * share / sum(each)
    wanted = Counter(map(length, typed))
    ratio = {
        chars: sqrt((wanted[chars] / wanted.total() + RARE) / (asked[chars] / asked.total() + RARE))
        for chars in range(SHORTEST, LONGEST + 1)
    }
    found = []
    for one, each in zip(examples, shares, strict=True):
        if not is_shops(one):
            found.append(one)
            continue
        scaled = [s * ratio[length(query)] for query, s in zip(one.queries, each, strict=True)]
        weight = one.weight * sum(scaled) / sum(each)
        found.append(Example(one.material, one.queries, one.beam, weight, tuple(scaled)))
    return found


def go_on(asked: Sequence[Example], typed: Sequence[str], start: Ranker) -> Ranker:
    """Weights changed by what some texts count for more; the others keep what they have taught."""
    texts = [one for one in asked if one.weight > 1]
    texts += [one for one in asked if one.weight == 1][::SOME]
    if typed:
        texts = by_length(texts, typed)
    return learn_more(texts, start, l2=CHANGE, trained={"asked": len(asked)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dataset", type=Path, help="needed without --go-on")
    parser.add_argument("--go-on", action="store_true")
    parser.add_argument("--lengths", type=Path)
    parser.add_argument("--start", type=Path, default=SHIPPED, help="the weights to go on from")
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--clicks", type=int, default=1200, help="for learning and for measuring")
    parser.add_argument(
        "--folds", type=int, default=FOLDS, help="of the cross-validation; 0: learn only"
    )
    parser.add_argument("--out", type=Path, default=SHIPPED)
    options = parser.parse_args()
    asked = read_rows(ASKED)
    if options.go_on:
        lines = options.lengths.read_text(encoding="utf-8").splitlines() if options.lengths else []
        go_on(asked, [line for line in lines if line], Ranker.load(options.start)).save(options.out)
        return
    if options.dataset is None:
        parser.error("--dataset is needed")
    taught = read_rows(options.teacher) if options.teacher else []
    dataset = open_dataset(options.dataset)
    train = clicks(dataset.read("train", ("click",)), options.clicks)
    some = [Example(one.material, one.queries, (), SIMULATED_WEIGHT) for one in train[:SIMULATED]]
    found: dict[str, list[Overlaps]] = {}
    for fold in range(options.folds):
        learned = [one for at, one in enumerate(asked) if at % options.folds != fold]
        ranker = learn_phrases([*learned, *taught, *some], least=2)
        for one in asked[fold :: options.folds]:
            found.setdefault(language(one), []).append(of_text(ranker, one))
    for name, overlaps in sorted(found.items()):
        nearest, each, first = (
            sum(column) / len(overlaps) for column in zip(*overlaps, strict=True)
        )
        print(
            f"{len(overlaps):,} {name} texts held back: nearest {nearest:.3f}, each {each:.3f}, "
            f"first {first:.3f}"
        )

    checkpoint = open_checkpoint()
    facts = {"asked": len(asked), "teacher": len(taught), "simulated": len(train)}
    phrases = learn_phrases([*asked, *taught, *some], least=2, trained=facts)
    ranker = learn_sources(with_beams(checkpoint, [*train, *asked[::BEAMS]]), phrases)
    ranker.save(options.out)
    test = with_beams(checkpoint, clicks(dataset.read("test", ("click",)), options.clicks))
    began = time.process_time()
    lists = [choose(one.material, one.beam, 8, _taste(ranker)).queries for one in test]
    micros = (time.process_time() - began) / len(test) * 1e6
    alone, listed = hits([one.beam for one in test], test), hits(lists, test)
    print(f"simulated clicks: beam HR@1 {alone[0]:.3f} HR@8 {alone[1]:.3f}")
    print(
        f"                  list HR@1 {listed[0]:.3f} HR@8 {listed[1]:.3f}, {micros:.0f} µs a list"
    )


if __name__ == "__main__":
    main()
