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
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from onebar.evidence.evidence import HAN_CHARACTER, Evidence, video_line
from onebar.evidence.prompt import build_prompt
from onebar.evidence.scripts import HIRAGANA, KATAKANA
from onebar.evidence.text import clean_video
from onebar.gating.risk import shipped_rules
from onebar.generator.checkpoint import Checkpoint, open_checkpoint
from onebar.generator.load import load_engine
from onebar.learning.phrases import Example, learn_phrases, learn_sources
from onebar.ranking.overlap import likeness
from onebar.recommending.candidates import choose
from onebar.recommending.material import Material, told
from onebar.recommending.pool import Taste
from onebar.recommending.ranker import SHIPPED, Ranker
from onebar.records import Candidate, VideoText
from onebar.triggers import Trigger, open_dataset

ASKED = SHIPPED.with_name("asked.jsonl")
FOLDS = 4
BEAMS = 3
"""The checkpoint generates for one in so many of the texts: sources have few weights."""
CORRECTIONS = {"pair": -1.0, "made:asked": 1.5}
"""What is added to learned weights of phrases: who wrote the texts' queries had the text before
their eyes, and so put its words together, and keep its name of a thing, more often than people who
look for it."""
BY_HAND = {"loose": -2.5}
"""Weights that no text teaches: what a generator puts together of words from here and there."""
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


def corrected(ranker: Ranker) -> Ranker:
    """A ranker of phrases with `CORRECTIONS`."""
    weights = ranker.weights
    changed = {name: weights.get(name, 0.0) + by for name, by in CORRECTIONS.items()}
    return Ranker({**weights, **changed}, ranker.trained)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--clicks", type=int, default=1200, help="for learning and for measuring")
    parser.add_argument(
        "--folds", type=int, default=FOLDS, help="of the cross-validation; 0: learn only"
    )
    parser.add_argument("--out", type=Path, default=SHIPPED)
    options = parser.parse_args()
    asked = read_rows(ASKED)
    taught = read_rows(options.teacher) if options.teacher else []
    dataset = open_dataset(options.dataset)
    train = clicks(dataset.read("train", ("click",)), options.clicks)
    some = [Example(one.material, one.queries, (), SIMULATED_WEIGHT) for one in train[:SIMULATED]]
    found: dict[str, list[Overlaps]] = {}
    for fold in range(options.folds):
        learned = [one for at, one in enumerate(asked) if at % options.folds != fold]
        ranker = corrected(learn_phrases([*learned, *taught, *some], least=2))
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
    phrases = corrected(learn_phrases([*asked, *taught, *some], least=2, trained=facts))
    ranker = learn_sources(with_beams(checkpoint, [*train, *asked[::BEAMS]]), phrases)
    ranker = Ranker({**ranker.weights, **BY_HAND}, ranker.trained)
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
