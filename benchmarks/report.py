"""docs/results.md, from the outcomes that `benchmarks/results.py` measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from experiments import BEFORE, BY_NAME, CANDIDATES, EXPERIMENTS, QBQTC, SIMULATOR, START
from layout import (
    checkpoint_of,
    chosen_of,
    generator_of,
    load_outcomes,
    outcomes_beside,
    outcomes_of,
)
from sources import Oracle, dataset_of, propensity_of, relevance_of, taps_of, test_triggers

from onebar import __version__
from onebar.evaluation.baselines.cascade import Cascade
from onebar.evaluation.baselines.simple import AnchorsAlone, Popularity, TitleCopy
from onebar.evaluation.metrics import (
    Interval,
    Measured,
    Runs,
    compare,
    holm,
    mean_of,
    summary,
)
from onebar.evaluation.outcomes import Outcomes, measure
from onebar.evaluation.predict import Predictor
from onebar.generator.checkpoint import open_checkpoint
from onebar.triggers import Trigger

CLICKED = ("hr@1", "hr@8", "mrr@8", "ed_hr@8", "bleu@8")
PRIMARY = ("true_tap@1", "true_tap@8", "ips_taps@8")
"""What the stages are told by: only these are tested, or so many comparisons would find something
by chance."""
TAPPED = (
    *("hr@1", "hr@8", "mrr@8", "true_tap@1", "true_tap@8", "ips_taps@8", "snips_taps@8"),
    *("hung_f1@8", "bleu@8", "relevant@8", "diversity@8", "repeats@8", "coverage"),
)
COLUMNS = (*TAPPED, "reject_precision", "reject_recall")
CHOOSING = (*PRIMARY, "snips_taps@8", "hr@1", "hr@8", "relevant@8", "diversity@8")
"""What is told of a candidate setting."""
BASELINES = {
    SIMULATOR: ("title", "popularity", "anchors", "cascade", "oracle"),
    QBQTC: ("title", "popularity", "cascade"),
}
SURE = 0.05
RATIO = 2.8
"""The paper's HR@8 over that of retrieval alone."""
Differences = list[tuple[str, str]]
"""A run, and the one that it is compared with."""
GROUPS: tuple[tuple[str, str, Differences], ...] = (
    (
        "Stages",
        "Each run less the one that it goes on from, and less the first; lists in the "
        "generator's own order.",
        [
            ("listwise", "sft"),
            ("piopd", "listwise"),
            ("reinforce", "piopd"),
            ("piopd", "sft"),
            ("reinforce", "sft"),
        ],
    ),
    (
        "With a click ranker",
        "The same generators where a click ranker of their own orders their candidates among all "
        "others ([training.md](training.md#what-people-tap)).",
        [
            ("sft-ranked", "cascade"),
            ("sft-ranked", "sft"),
            ("piopd-ranked", "cascade"),
            ("piopd-ranked", "sft-ranked"),
        ],
    ),
    (
        "Equal compute: is it the stage, or the time?",
        "",
        [("listwise", "sft-for-listwise"), ("piopd", "sft-for-piopd")],
    ),
    (
        "The form of the prompt, and each field of the evidence",
        "",
        [
            (name, "short")
            for name in (
                *("verbose", "verbose-cut", "no-text", "no-summary", "no-anchors", "no-history"),
                "no-pretraining",
            )
        ],
    ),
    (
        "What PIOPD learns from, and its terms",
        "",
        [
            (e.name, "piopd")
            for e in EXPERIMENTS
            if e.name == "plain-kd" or (e.name.startswith("piopd-") and not e.ranked)
        ],
    ),
)
"""Title, what is said before, and the runs with those that they are compared with."""


def baselines(
    work: Path, source: str, triggers: Sequence[Trigger], propensity: Sequence[float] = ()
) -> dict[str, Outcomes]:
    """The outcomes of everything that is no generator; what was measured before is read."""
    found: dict[str, Outcomes] = {}
    train: list[Trigger] = []
    for name in BASELINES[source]:
        path = outcomes_of(work, f"{source}-baseline-{name}", 0, len(triggers))
        if path.with_suffix(".json").exists():
            found[name] = Outcomes.load(path)
            continue
        if not train:
            train = list(dataset_of(work, source).read("train", ("click", "reject")))
        predictor: Predictor
        match name:
            case "title":
                predictor = TitleCopy()
            case "popularity":
                predictor = Popularity(train)
            case "anchors":
                predictor = AnchorsAlone()
            case "cascade":
                predictor = Cascade(train)
            case _:
                predictor = Oracle(work)
        found[name] = measure(
            predictor,
            triggers,
            relevance=relevance_of(work, source),
            taps=taps_of(work) if source == SIMULATOR else None,
            propensity=propensity,
        )
        found[name].save(path)
    return found


def measured(
    names: Sequence[str], source: str, work: Path, seeds: int, limit: int
) -> dict[str, Runs]:
    """The runs on this data that there are outcomes of, all seeds of each as one."""
    return {
        name: mean_of(found)
        for name, experiment in BY_NAME.items()
        if experiment.source == source
        and name in names
        and (found := load_outcomes(work, name, seeds, limit))
    }


def write_report(
    work: Path, out: Path, names: Sequence[str], seeds: int, limit: int, *, command: str
) -> None:
    """Write the page of these runs, as far as they were measured."""
    lines = [
        "# Results",
        "",
        f"Written by `{command}`; nothing here was typed in by hand. {_machine(work, names)} "
        "Intervals are 95 %, from a bootstrap over users and over seeds; a run's value is the mean "
        "of its seeds.",
        "",
        f"Of version {__version__}, all of it. {_left_out(names)}".rstrip(),
        "",
        *_simulated(work, names, seeds, limit),
    ]
    chinese = measured(names, QBQTC, work, seeds, limit)
    if chinese:
        lines += _chinese(work, chinese, limit)
    lines += [*_choosing(work), "", "## Settings", "", *_settings(names)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


def _left_out(names: Sequence[str]) -> str:
    """The runs that this page does not have, and what makes them."""
    others = [e.name for e in EXPERIMENTS if e.name not in names and e.stage != "pretrain"]
    if not others:
        return ""
    return (
        "Runs that it does not have were not measured with this version: `--only "
        f"{','.join(others)}` makes them (with `--qbqtc` where a name begins so)."
    )


def _machine(work: Path, names: Sequence[str]) -> str:
    """What was trained, and on what, by the cards of the checkpoints."""
    paths = (checkpoint_of(work, name, 0) for name in names)
    cards = [open_checkpoint(path, verify=False).card for path in paths if path.is_dir()]
    devices = sorted({card.training.get("device", "cpu") for card in cards})
    presets = sorted({f"`{c.preset}` ({c.training['parameters'] / 1e6:.1f} M)" for c in cards})
    return (
        f"Preset {', '.join(presets)} parameters, trained on {', '.join(devices)} (a machine of "
        f"{os.cpu_count()} {platform.machine()} cores)."
    )


def _simulated(work: Path, names: Sequence[str], seeds: int, limit: int) -> list[str]:
    known = baselines(work, SIMULATOR, test_triggers(work, SIMULATOR, limit), propensity_of(work))
    runs = measured(names, SIMULATOR, work, seeds, limit)
    everything: dict[str, Measured] = {**known, **runs}
    clicks = {
        name: split.get("click", 0)
        for name, split in dataset_of(work, SIMULATOR).card.splits.items()
    }
    first = known["cascade"]
    lines = [
        "## The simulated world",
        "",
        f"One simulated log (`onebar simulate`, seed 1, English), archived and made a dataset: "
        f"{clicks['train']:,} clicks to train on, {clicks['valid']:,} to validate, "
        f"{clicks['test']:,} after them in time to test. Measured on "
        f"{int(first.has_target.sum()):,} clicks and {int(first.is_reject.sum()):,} rejects of the "
        "test part.",
        "",
        *table([(name, summary(outcomes)) for name, outcomes in known.items()]),
        "",
        "`true_tap` is how likely the first query, or any of the bar, is tapped by the simulator's "
        "hidden truth, by a user whom the video interests; `oracle` knows it. `ips_taps` is what "
        "the log alone says of it: logged taps on these queries, by how likely their places are "
        "looked at. What each column is: [evaluation.md](evaluation.md).",
        "",
        "## The runs",
        "",
        *table([(f"{BY_NAME[name].title} (`{name}`)", summary(run)) for name, run in runs.items()]),
        "",
        "Seeds: " + ", ".join(f"`{name}` {len(run.runs)}" for name, run in runs.items()) + "; a "
        "run of one seed has no spread over seeds in its intervals, and what goes on from it is "
        "told of that one.",
        "",
        *_targets(known, runs),
    ]
    for title, said, pairs in GROUPS:
        if any(one in runs and other in everything for one, other in pairs):
            lines += ["", f"## {title}", "", *([said, ""] if said else [])]
            lines += differences(everything, pairs, COLUMNS)
    return [*lines, *_moved(work, runs)]


def _moved(work: Path, runs: Mapping[str, Runs]) -> list[str]:
    """What each stage did to its loss and to the lists."""
    rows = []
    for name, run in runs.items():
        start = BY_NAME[name].start
        before = runs.get(generator_of(start)) if start else None
        if before is None or BY_NAME[name].ranked:
            continue
        cards = [open_checkpoint(checkpoint_of(work, name, at), verify=False).card
                 for at in range(len(run.runs))]  # fmt: skip
        losses = [card.training.get("validation") for card in cards]
        told = [f"{loss['before']:.3f} → {loss['best']:.3f}" for loss in losses if loss]
        moved = [_shift(before.runs[at % len(before.runs)], one) for at, one in enumerate(run.runs)]
        first, common = np.mean(moved, axis=0)
        seconds = np.mean([card.training["seconds"] for card in cards])
        steps = np.mean([card.training["steps"] for card in cards])
        rows.append(
            f"| `{name}` | {', '.join(told) or '–'} | {first:.1%} | {common:.2f} | {steps:.0f} | "
            f"{seconds:.0f} |"
        )
    if not rows:
        return []
    return [
        "",
        "## What each stage moved",
        "",
        "The stage's own loss on the valid part before its first step and where it was best, a "
        "seed each (for reinforcement less the mean reward of a list); then how many clicks have "
        "another first query than before the stage, how many queries of a bar stood in it before, "
        "the steps until the run ended, and its seconds on a machine that others used too.",
        "",
        "| stage | loss on valid | other first query | kept of the bar | steps | seconds |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def _shift(before: Outcomes, after: Outcomes) -> tuple[float, float]:
    """Share of the triggers with a target whose first query is another now, and the mean share of
    the queries given now that were given before."""
    mask = before.has_target
    first = float((before.first[mask] != after.first[mask]).mean())
    kept = []
    for one, other in zip(before.given[mask], after.given[mask], strict=True):
        now = set(other.split("\n")) - {""}
        if now:
            kept.append(len(now & set(one.split("\n"))) / len(now))
    return first, float(np.mean(kept)) if kept else 0.0


def _choosing(work: Path) -> list[str]:
    """What the settings were chosen among, as far as it was measured."""
    lines: list[str] = []
    for stage, candidates in CANDIDATES.items():
        found = {
            name: Outcomes.load(path)
            for name in (START, *candidates)
            if (path := outcomes_beside(chosen_of(work, stage, name))).with_suffix(".json").exists()
        }
        if len(found) < 2:
            continue
        start = found.pop(START)
        clicks = int(start.has_target.sum())
        lines += [
            "",
            f"`{stage}`, {clicks:,} clicks of the valid part, seed 0; each less what it goes on "
            "from:",
            "",
            *table([(f"`{start.name}`", summary(start))], CHOOSING),
            "",
            *table(
                [
                    (f"{name}: {_told({**BEFORE[stage], **candidates[name]})}", compare(start, one))
                    for name, one in found.items()
                ],
                CHOOSING,
                signed=True,
            ),
        ]
    if not lines:
        return []
    return [
        "",
        "## How the settings were chosen",
        "",
        "By `python benchmarks/choosing.py STAGE`, on clicks of the valid part that no click "
        "ranker has learned from; the test part was not read for it.",
        *lines,
    ]


def _chinese(work: Path, runs: dict[str, Runs], limit: int) -> list[str]:
    """Title → query on QBQTC, also by what the titles look like."""
    triggers = test_triggers(work, QBQTC, limit)
    known = baselines(work, QBQTC, triggers)
    clicks = {
        name: split.get("click", 0) for name, split in dataset_of(work, QBQTC).card.splits.items()
    }
    rows: list[tuple[str, Outcomes | Runs]] = [
        *known.items(),
        *((f"{BY_NAME[name].title} (`{name}`)", run) for name, run in runs.items()),
    ]
    lines = [
        "",
        "## Real Chinese text",
        "",
        "QBQTC (CLUE benchmark): the title of a page, and the web search that led to it. There are "
        "no anchors, no history and no time; pairs of label 1 and 2, split so that neither a query "
        f"nor a title stands on two sides: {clicks['train']:,} to train on, {clicks['test']:,} to "
        "test. So whatever only repeats queries it has seen can hit none.",
    ]
    kinds = ["all", *sorted({trigger.category for trigger in triggers})]
    for kind in kinds:
        mask = np.array([kind in ("all", trigger.category) for trigger in triggers])
        title = "All of them" if kind == "all" else f"Titles that look like `{kind}`"
        found_of_kind = table([(name, summary(found, mask)) for name, found in rows], CLICKED)
        lines += ["", f"{title} ({int(mask.sum()):,}):", "", *found_of_kind]
    return lines


def table(
    rows: Sequence[tuple[str, dict[str, Interval]]],
    columns: Sequence[str] = COLUMNS,
    *,
    signed: bool = False,
) -> list[str]:
    """A row each of these columns, as far as there are any; `signed` for differences."""
    names = [name for name in columns if any(name in found for _, found in rows)]
    return [
        "| | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
        *(
            f"| {title} | "
            + " | ".join(_cell(found.get(name), signed=signed) for name in names)
            + " |"
            for title, found in rows
        ),
    ]


def _cell(interval: Interval | None, *, signed: bool = False) -> str:
    if interval is None or interval.value != interval.value:
        return "–"
    half = (interval.high - interval.low) / 2
    return f"{interval.value:+.4f} ± {half:.4f}" if signed else f"{interval.value:.4f} ± {half:.4f}"


def _targets(known: dict[str, Outcomes], runs: dict[str, Runs]) -> list[str]:
    """The ratio to retrieval alone, and whether each stage is above the one before."""
    anchors = summary(known["anchors"])["hr@8"].value
    lines = [f"HR@8 over that of the anchors alone (the paper's ratio is {RATIO}):", ""]
    for name in ("sft", "listwise", "piopd", "reinforce"):
        if name in runs:
            value = summary(runs[name])["hr@8"].value
            lines.append(
                f"- `{name}`: {value / anchors:.2f}" if anchors else f"- `{name}`: {value}"
            )
    return lines


def differences(
    runs: Mapping[str, Measured], pairs: Differences, columns: Sequence[str]
) -> list[str]:
    """Paired differences of these runs, each from the one it is compared with. Tested are the
    `PRIMARY` columns."""
    rows = [
        (f"`{one}` less `{other}`", compare(runs[other], runs[one]))
        for one, other in pairs
        if one in runs and other in runs
    ]
    names = [name for name in columns if any(name in found for _, found in rows)]
    family = {f"{at}:{name}": found[name].p for at, (_, found) in enumerate(rows)
              for name in PRIMARY if name in found}  # fmt: skip
    corrected = holm(family)

    def cell(at: int, name: str) -> str:
        interval = rows[at][1][name]
        text = f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
        return f"**{text}**" if corrected.get(f"{at}:{name}", 1.0) < SURE else text

    return [
        "| paired difference | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
        *(
            f"| {title} | " + " | ".join(cell(at, name) for name in names) + " |"
            for at, (title, _) in enumerate(rows)
        ),
        "",
        f"Bold: p < {SURE} after correction for the {len(family)} comparisons of "
        f"{', '.join(f'`{name}`' for name in PRIMARY)} in this table (Holm). The other columns are "
        "told and not tested.",
    ]


def _settings(names: Sequence[str]) -> list[str]:
    return [
        "| run | stage | from | settings |",
        "|---|---|---|---|",
        *(
            f"| `{e.name}` | {e.stage} | {e.start or 'scratch'} | "
            + _told(e.changes)
            + (f"; as long as `{e.as_long_as}`" if e.as_long_as else "")
            + " |"
            for e in EXPERIMENTS
            if e.name in names
        ),
    ]


def _told(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in changes.items())
