"""docs/results.md, from the outcomes that `benchmarks/results.py` measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from experiments import BY_NAME, EXPERIMENTS, QBQTC, SIMULATOR
from layout import checkpoint_of, load_outcomes, outcomes_of
from sources import Oracle, dataset_of, relevance_of, taps_of, test_triggers

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
COLUMNS = (
    *CLICKED,
    *("relevance@8", "relevant@8", "reject_precision", "reject_recall", "entropy_first"),
)
BASELINES = {
    SIMULATOR: ("title", "popularity", "anchors", "cascade", "oracle"),
    QBQTC: ("title", "popularity", "cascade"),
}
SURE = 0.05
RATIO = 2.8
"""The paper's HR@8 over that of retrieval alone."""
GROUPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Stages", "", ("sft", "listwise", "piopd")),
    ("", "sft", ("piopd",)),
    (
        "The form of the prompt, and each field of the evidence",
        "short",
        (
            "verbose",
            "verbose-cut",
            "no-text",
            "no-summary",
            "no-anchors",
            "no-history",
            "no-pretraining",
        ),
    ),
    ("Equal compute: is it the stage, or the time?", "listwise", ("sft-for-listwise",)),
    ("", "piopd", ("sft-for-piopd", "plain-kd", "piopd-unprivileged", "piopd-off-policy")),
    (
        "Each term of PIOPD",
        "piopd",
        tuple(e.name for e in EXPERIMENTS if e.name.startswith("piopd-no-")),
    ),
    ("Other settings: step size, strength, length", "piopd", ("piopd-slow",)),
    ("", "listwise", ("listwise-slow", "listwise-fast", "listwise-strong")),
)
"""Title, the run that the others are compared with (the one before, where empty), and the runs."""


Differences = list[tuple[str, str]]
"""A run, and the one that it is compared with."""


def baselines(
    work: Path, source: str, triggers: Sequence[Trigger], propensity: Sequence[float] = ()
) -> dict[str, Outcomes]:
    """The outcomes of everything that is no generator; what was measured before is read."""
    found: dict[str, Outcomes] = {}
    train: list[Trigger] = []
    for name in BASELINES[source]:
        path = outcomes_of(work, f"{source}-baseline-{name}", 0)
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


def measured(names: Sequence[str], source: str, work: Path, seeds: int) -> dict[str, Runs]:
    """The runs on this data that there are outcomes of, all seeds of each as one."""
    return {
        name: mean_of(found)
        for name, experiment in BY_NAME.items()
        if experiment.source == source
        and name in names
        and (found := load_outcomes(work, name, seeds))
    }


def write_report(
    work: Path, out: Path, names: Sequence[str], seeds: int, limit: int, *, command: str
) -> None:
    """Write the page of these runs, as far as they were measured."""
    lines = [
        "# Results",
        "",
        f"Written by `{command}`; nothing here was typed in by hand. {_machine(work, names)} "
        "Intervals are 95 %, from a bootstrap over users; a run's value is the mean of its "
        f"{seeds} seed(s).",
        "",
        f"Of version {__version__}.",
        "",
        *_simulated(work, names, seeds, limit),
    ]
    chinese = measured(names, QBQTC, work, seeds)
    if chinese:
        lines += _chinese(work, chinese, limit)
    lines += ["", "## Settings", "", *_settings(names)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


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
    known = baselines(work, SIMULATOR, test_triggers(work, SIMULATOR, limit))
    runs = measured(names, SIMULATOR, work, seeds)
    clicks = {
        name: split.get("click", 0)
        for name, split in dataset_of(work, SIMULATOR).card.splits.items()
    }
    first = next(iter(known.values()))
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
        "`oracle` knows the video's subject and the user's way of putting things. What a query is "
        "worth beyond the log is told by `relevance@8` (0 to 3, the simulator's hidden truth, mean "
        "of the eight) and `relevant@8` (share of grade 3). `entropy_first` is little for a model "
        "that collapses to few first queries.",
        "",
        "## The runs",
        "",
        *table([(f"{BY_NAME[name].title} (`{name}`)", summary(run)) for name, run in runs.items()]),
        "",
        *_targets(known, runs),
    ]
    for title, reference, members in GROUPS:
        lines += _group(title, reference, members, runs)
    return lines


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
    rows: Sequence[tuple[str, dict[str, Interval]]], columns: Sequence[str] = COLUMNS
) -> list[str]:
    names = [name for name in columns if any(name in found for _, found in rows)]
    return [
        "| | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
        *(
            f"| {title} | " + " | ".join(_cell(found.get(name)) for name in names) + " |"
            for title, found in rows
        ),
    ]


def _cell(interval: Interval | None) -> str:
    if interval is None or interval.value != interval.value:
        return "–"
    half = (interval.high - interval.low) / 2
    return f"{interval.value:.4f} ± {half:.4f}"


def _targets(known: dict[str, Outcomes], runs: dict[str, Runs]) -> list[str]:
    """The ratio to retrieval alone, and whether each stage is above the one before."""
    anchors = summary(known["anchors"])["hr@8"].value
    lines = [f"HR@8 over that of the anchors alone (the paper's ratio is {RATIO}):", ""]
    for name in ("sft", "listwise", "piopd"):
        if name in runs:
            value = summary(runs[name])["hr@8"].value
            lines.append(
                f"- `{name}`: {value / anchors:.2f}" if anchors else f"- `{name}`: {value}"
            )
    return lines


def _group(title: str, reference: str, members: Sequence[str], runs: dict[str, Runs]) -> list[str]:
    """Paired differences of these runs from their reference."""
    lines = ["", f"## {title}", ""] if title else [""]
    rows = []
    for at, name in enumerate(members):
        base = reference or (members[at - 1] if at else "")
        if name in runs and base in runs:
            found = compare(runs[base], runs[name])
            rows.append((f"`{name}` less `{base}`", found))
    if not rows:
        return [*lines, "Not measured yet."] if title else []
    return [*lines, *_differences(rows)]


def differences(
    runs: Mapping[str, Measured], pairs: Differences, columns: Sequence[str]
) -> list[str]:
    """Paired differences of these runs, each from the one it is compared with."""
    rows = [
        (f"`{one}` less `{other}`", compare(runs[other], runs[one]))
        for one, other in pairs
        if one in runs and other in runs
    ]
    return _differences(rows, columns)


def _differences(
    rows: Sequence[tuple[str, dict[str, Interval]]], columns: Sequence[str] = COLUMNS
) -> list[str]:
    names = [name for name in columns if any(name in found for _, found in rows)]
    family = {f"{at}:{name}": rows[at][1][name].p for at in range(len(rows)) for name in names
              if name in rows[at][1]}  # fmt: skip
    corrected = holm(family)

    def cell(at: int, name: str) -> str:
        interval = rows[at][1][name]
        text = f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
        return f"**{text}**" if corrected[f"{at}:{name}"] < SURE else text

    return [
        "| paired difference | " + " | ".join(names) + " |",
        "|---|" + "---|" * len(names),
        *(
            f"| {title} | " + " | ".join(cell(at, name) for name in names) + " |"
            for at, (title, _) in enumerate(rows)
        ),
        "",
        f"Bold: p < {SURE} after correction for all comparisons of this table (Holm).",
    ]


def _settings(names: Sequence[str]) -> list[str]:
    return [
        "| run | stage | from | settings |",
        "|---|---|---|---|",
        *(
            f"| `{e.name}` | {e.stage} | {e.start or 'scratch'} | "
            + ", ".join(f"{key} {value}" for key, value in e.changes.items())
            + (f"; as long as `{e.as_long_as}`" if e.as_long_as else "")
            + " |"
            for e in EXPERIMENTS
            if e.name in names
        ),
    ]
