"""What anchors are worth, and whether others' do for new videos: writes docs/anchors.md.

    python benchmarks/anchors.py                    # all of it: most of an hour on one core
    python benchmarks/anchors.py --events 6000 --scale 0.01 --limit 100 --out /tmp/anchors.md

One simulated log becomes an archive, that a dataset; an embedder is trained on what came before its
test part, calibrated and measured; generators of one size, start and number of steps learn to read
the video's own anchors, or also those of near videos and of the log. Every step is a command of
`onebar`. Work lies in `--work`; what is there already is not done again.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from experiments import PAIRS, PRESET, RATE, SIMULATOR
from layout import dataset_directory, source_directory
from msgspec import Struct
from sources import make_simulated

from onebar.cli.main import app
from onebar.evaluation.evaluate import evaluation_triggers
from onebar.evaluation.predict import EnginePredictor
from onebar.triggers import open_dataset

STAGES = ("q2v", "all")
PAPER = 0.335 / 0.282
"""What filtering brings the paper's anchors: their hit rate with it, over that without."""
COLD_SHARE = 0.7
"""Of the head's HR@8: what new videos are to reach."""
SLICES = ("all", "cold video", "tail video", "head video", "head target", "tail target",
          "unseen target")  # fmt: skip
EMBED_STEPS = 300
PRETRAIN_STEPS = 800
SFT_STEPS = 500


class Arm(Struct, frozen=True):
    """One generator: what it reads in A."""

    name: str
    title: str
    enriched: bool
    settings: tuple[str, ...] = ()


ARMS = (
    Arm("own", "the video's own", enriched=False),
    Arm("near", "+ near videos' and the log's", enriched=True),
    Arm(
        "near-wide", "the same, with twice the room for A", enriched=True,
        settings=("prompt.anchors_bytes=224", "generation.max_source_tokens=128"),
    ),
)  # fmt: skip


def main() -> None:
    options = parse()
    work: Path = options.work
    make_simulated(work, options.events, options.days)
    found = {
        "card": json.loads((dataset_directory(work, SIMULATOR) / "dataset.json").read_text()),
        "embedders": embedders(work, options),
        "generators": generators(work, options),
        "cold": [cold_hits(work, arm, options.limit) for arm in ARMS],
    }
    options.out.write_text(page(found, options), encoding="utf-8")
    print(options.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path(".cache/anchors"))
    parser.add_argument("--out", type=Path, default=Path("docs/anchors.md"))
    parser.add_argument("--events", type=int, default=500_000, help="events of the log")
    parser.add_argument("--days", type=float, default=7.0, help="over how many days")
    parser.add_argument("--limit", type=int, default=3000, help="triggers a generator is asked")
    parser.add_argument("--scale", type=float, default=1.0, help="shortens every training")
    parser.add_argument("--preset", default=PRESET, help="size of the generators")
    return parser.parse_args()


def onebar(*words: object) -> str:
    """What a command prints; run in this process, for most of them would load torch anew."""
    said = io.StringIO()
    with redirect_stdout(said):
        failed = app([str(word) for word in words], standalone_mode=False)
    if failed:
        raise RuntimeError(f"onebar {' '.join(map(str, words))} ended with {failed}")
    return said.getvalue()


def steps(count: int, options: argparse.Namespace) -> int:
    scaled: int = max(2, round(count * options.scale))
    return scaled


def train_embedder(work: Path, count: int, stage: str = STAGES[-1]) -> Path:
    """Where the stages of an embedder lie, this one at least, that was trained on what came before
    the test part, in so many steps each."""
    home, mined = work / "embedders", work / "relations"
    if not mined.exists():
        onebar("embed", "relations", source_directory(work, SIMULATOR) / "archive",
               "--dataset", dataset_directory(work, SIMULATOR), "--out", mined)  # fmt: skip
    if not (home / stage).exists():
        onebar("embed", "train", mined, "--out", home, "--device", "cpu", "--threads", 1,
               "--steps", count)  # fmt: skip
    return home


def embedders(work: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The embedder's stages, measured on the clicks of the test part."""
    dataset = dataset_directory(work, SIMULATOR)
    report = work / "anchors.json"
    if not report.exists():
        home = train_embedder(work, steps(EMBED_STEPS, options))
        for stage in STAGES:
            onebar("embed", "calibrate", dataset, "--embedder", home / stage, "--save")
        named = [word for stage in STAGES for word in ("--embedder", home / stage)]
        report.write_text(onebar("embed", "evaluate", dataset, *named, "--json"))
    found: list[dict[str, Any]] = json.loads(report.read_text())
    return found


def generators(work: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One generator an arm, measured on the same triggers, by slices."""
    plain, near = dataset_directory(work, SIMULATOR), work / "dataset-near"
    if not near.exists():
        onebar("embed", "dataset", plain, "--embedder", work / "embedders" / STAGES[-1],
               "--no-history", "--out", near)  # fmt: skip
    common = ("--device", "cpu", "--threads", 1, "--batch-size", PAIRS)
    start = work / "pretrain"
    if not start.exists():
        onebar("train", "pretrain", plain, "--out", start, "--preset", options.preset, *common,
               "--steps", steps(PRETRAIN_STEPS, options))  # fmt: skip
    found = []
    for arm in ARMS:
        dataset, out = near if arm.enriched else plain, work / arm.name
        report = work / f"{arm.name}.json"
        if not out.exists():
            changed = [word for setting in arm.settings for word in ("--set", setting)]
            onebar("train", "sft", dataset, "--init", start, "--out", out, *common, *changed,
                   "--learning-rate", RATE, "--steps", steps(SFT_STEPS, options))  # fmt: skip
        if not report.exists():
            onebar("evaluate", out, "--dataset", dataset, "--slices", "--threads", 1,
                   "--limit", options.limit, "--out", report)  # fmt: skip
        found.append(json.loads(report.read_text())["rows"][0])
    return found


def cold_hits(work: Path, arm: Arm, limit: int) -> dict[str, list[float]]:
    """[clicks, HR@8] of new videos, by whether the enriched A holds the query that was clicked."""
    report = work / f"{arm.name}-cold.json"
    if not report.exists():
        near = open_dataset(work / "dataset-near")
        read = near if arm.enriched else open_dataset(dataset_directory(work, SIMULATOR))
        given = {trigger.trigger_id: trigger.anchors for trigger in near.read("test", ("click",))}
        cold = [
            trigger for trigger in evaluation_triggers(read, "test", limit)
            if trigger.kind == "click" and not trigger.video_behaviors
        ]  # fmt: skip
        predictor = EnginePredictor(work / arm.name, threads=1)
        answers = predictor.predict(cold, 8)
        predictor.close()
        hits: dict[str, list[bool]] = {"in A": [], "elsewhere": []}
        for trigger, answer in zip(cold, answers, strict=True):
            place = "in A" if trigger.target in given[trigger.trigger_id] else "elsewhere"
            hits[place].append(trigger.target in answer.queries)
        told = {place: [len(h), sum(h) / max(1, len(h))] for place, h in hits.items()}
        report.write_text(json.dumps(told))
    found: dict[str, list[float]] = json.loads(report.read_text())
    return found


def page(found: Mapping[str, Any], options: argparse.Namespace) -> str:
    shaping = ("events", "days", "limit", "scale", "preset")
    said = " ".join(f"--{name} {getattr(options, name)}" for name in shaping)
    splits = found["card"]["splits"]
    last = found["embedders"][-1]
    return "\n\n".join(
        [
            "# What anchors are worth",
            f"Written by `python benchmarks/anchors.py {said}`; nothing here was typed in by hand. "
            f"One simulated log (`onebar simulate`, seed 1, English): {splits['train']['click']:,} "
            f"clicks to learn from, {splits['test']['click']:,} after them in time to measure on. "
            "docs/embedding.md says how anchors come about.",
            "## Is the clicked query among them?",
            *map(stage_table, STAGES, found["embedders"]),
            "`own` is raw co-occurrence: what was asked after this very video. `near` is what was "
            "asked after videos near it, `by voices` in the order in which those propose it; `log` "
            "are queries of the log near the video itself. `≥` leaves out what is less similar to "
            "the video than the embedder was calibrated to.",
            "### By video and by query",
            slice_table(last),
            "Cold videos had no search, tap or engagement before; the head is the better known "
            "half of the others. Head queries have half of the clicks.",
            "### What order and filter bring",
            gains(last),
            "## Histories",
            histories(last),
            "## The generator",
            *generator_part(found["generators"], options),
            "HR@8 on new videos, where the clicked query is among the eight anchors that near "
            "videos and the log give, and where it is not:",
            cold_table(found["cold"]),
        ]
    ) + "\n"  # fmt: skip


def rows_of(report: Mapping[str, Any], piece: str) -> dict[str, dict[str, Any]]:
    """By anchors, the rows of one slice."""
    return {row["anchors"]: row for row in report["anchors"] if row["slice"] == piece}


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def stage_table(stage: str, report: Mapping[str, Any]) -> str:
    rows = [
        [label, f"{row['hit_rate']:.3f}", *(f"{row['recall'][k]:.3f}" for k in ("1", "4", "8")),
         f"{row['size']:.1f}", f"{row['covered']:.0%}"]
        for label, row in rows_of(report, "all").items()
    ]  # fmt: skip
    head = [f"stage `{stage}`", "hit rate", "in 1", "in 4", "in 8", "anchors", "covered"]
    return table(head, rows)


def slice_table(report: Mapping[str, Any]) -> str:
    by = {piece: found for piece in SLICES if (found := rows_of(report, piece))}
    head = ["hit rate", *(f"{p} ({next(iter(f.values()))['triggers']:,})" for p, f in by.items())]
    rows = [[label, *(f"{found[label]['hit_rate']:.3f}" for found in by.values())]
            for label in rows_of(report, "all")]  # fmt: skip
    return table(head, rows)


def gains(report: Mapping[str, Any]) -> str:
    rows = rows_of(report, "all")
    rate = {label: row["hit_rate"] for label, row in rows.items()}
    [kept] = [label for label in rate if label.startswith("near + log ≥")]
    lines = [
        gain("Neighbours' queries ordered by their similarity to the video, over as many as "
             "neighbours propose them", rate["near"], rate["near, by voices"]),
        gain(f"`{kept}`, over what neighbours propose", rate[kept], rate["near, by voices"]),
        gain(f"`{kept}`, over `near + log`: the filter alone, with "
             f"{rows[kept]['size']:.1f} anchors for {rows['near + log']['size']:.1f}",
             rate[kept], rate["near + log"]),
        gain("The log as one more source: `near + log` over `near`", rate["near + log"],
             rate["near"]),
        gain("All together, over raw co-occurrence: `own + near + log` over `own`",
             rate["own + near + log"], rate["own"]),
    ]  # fmt: skip
    first = rate["near"] / max(rate["near, by voices"], 1e-9)
    verdict = "reached" if first >= PAPER else "missed"
    return "\n".join(lines) + (
        f"\n\nThe paper's anchors gained {PAPER:.2f} times by filtering (0.282 to 0.335): "
        f"{verdict} by order ({first:.2f} times)."
    )


def gain(what: str, new: float, old: float) -> str:
    return f"- {what}: {new:.3f} for {old:.3f}, {new / max(old, 1e-9):.2f} times."


def histories(report: Mapping[str, Any]) -> str:
    head = ["history by", "precision", "recall", "queries", "shared"]
    rows = [
        [label, f"{row['precision']:.3f}", f"{row['recall']:.3f}", f"{row['size']:.2f}",
         f"{row['shared']:.1%}"]
        for label, row in report["histories"].items()
    ]  # fmt: skip
    return table(head, rows) + (
        "\n\nOf a user's newest queries, those that touch the video, by shared terms or by the "
        "calibrated similarity; a query mattered where it shares a term with the one then tapped. "
        "`shared`: triggers that keep none. Their users have one prompt, and so one cache entry, a "
        "video."
    )


def generator_part(rows: list[dict[str, Any]], options: argparse.Namespace) -> list[str]:
    pieces = [p for p in SLICES[1:] if p in rows[0]["slices"]]
    head = ["A", "HR@8", *(f"{p} ({rows[0]['slices'][p]['triggers']:,})" for p in pieces)]
    lines = [
        [arm.title, interval(row["metrics"]["hr@8"]),
         *(interval(row["slices"][p]["metrics"]["hr@8"]) for p in pieces)]
        for arm, row in zip(ARMS, rows, strict=True)
    ]  # fmt: skip
    shares = "\n".join(share(arm, row) for arm, row in zip(ARMS, rows, strict=True))
    return [
        f"One generator each (preset `{options.preset}`, {steps(PRETRAIN_STEPS, options):,} steps "
        f"of denoising that all begin with, {steps(SFT_STEPS, options):,} of SFT, one seed), on "
        f"the same {rows[0]['clicks']:,} clicks and {rows[0]['rejects']:,} rejects. Intervals are "
        "95 %, from a bootstrap over users.",
        table(head, lines),
        f"New videos are to reach {COLD_SHARE:.0%} of the head's HR@8:",
        shares,
    ]


def cold_table(rows: list[dict[str, list[float]]]) -> str:
    head = ["A", *(f"{place} ({count:,})" for place, (count, _) in rows[0].items())]
    return table(
        head,
        [[arm.title, *(f"{rate:.3f}" for _, rate in row.values())]
         for arm, row in zip(ARMS, rows, strict=True)],
    )  # fmt: skip


def interval(value: list[float | None]) -> str:
    middle, low, high = value
    return "–" if middle is None else f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def share(arm: Arm, row: Mapping[str, Any]) -> str:
    slices = row["slices"]
    cold, head = (
        slices[p]["metrics"]["hr@8"][0] if p in slices else None
        for p in ("cold video", "head video")
    )
    if not cold or not head:
        return f"- {arm.title}: not told by so few triggers."
    verdict = "reached" if cold / head >= COLD_SHARE else "missed"
    return f"- {arm.title}: {cold:.3f} for {head:.3f}, {cold / head:.0%}, {verdict}."


if __name__ == "__main__":
    main()
