"""`onebar evaluate --shadow OLD NEW`: what a promotion would change."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from onebar.cli.common import print_json, write_json
from onebar.process.console import progress

if TYPE_CHECKING:
    from onebar.evaluation.comparing.shadow import ShadowReport
    from onebar.evaluation.metrics import Interval
    from onebar.evaluation.offpolicy import Estimate
    from onebar.triggers import Split, TriggerDataset


def run_shadow(
    old: Path,
    new: Path,
    dataset: TriggerDataset,
    split: Split,
    *,
    limit: int | None,
    k: int,
    threads: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """Run both on the slice and print the difference. Raises as `shadow` does."""
    from onebar.evaluation.comparing.shadow import shadow
    from onebar.evaluation.predict import EnginePredictor
    from onebar.triggers import EmptyDatasetError

    kept = dataset.card.settings.get("shown_share", 1.0)
    if split != "test" and kept < 1:
        raise EmptyDatasetError(
            f"the {split} split keeps {kept:.0%} of the impressions without a tap, so how often "
            "one is tapped can't be told: take --split test, or make the dataset with "
            "--shown-share 1"
        )
    triggers = list(dataset.read(split, ("click", "reject", "shown")))
    if limit is not None and len(triggers) > limit:
        triggers = triggers[:: -(-len(triggers) // limit)]
    predictors = [
        EnginePredictor(path, threads=threads, beam_size=max(8, k)) for path in (old, new)
    ]
    try:
        with progress("evaluating") as shown:
            report = shadow(
                predictors[0],
                predictors[1],
                triggers,
                k=k,
                progress=lambda done, total: shown(done / total, f"{done:,} of {total:,}"),
            )
    finally:
        for predictor in predictors:
            predictor.close()
    if out is not None:
        write_json(out, report)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _print(report: ShadowReport) -> None:
    print(f"old {report.old}\nnew {report.new}")
    print(f"{report.triggers:,} impressions, {report.clicks:,} with a tap\n")
    for name, difference in report.differences.items():
        print(f"  {name:18} {_signed(difference)}")
    print(f"  {'another first':18} {report.other_first:8.1%} of impressions")
    print(f"  {'another list':18} {report.other_list:8.1%}, {report.overlap:.1%} of it kept")
    print(
        f"  {'rejections':18} {report.now_rejected:+8.2%} new, "
        f"{-report.no_longer_rejected:+.2%} gone"
    )
    print(f"  {'ms a prompt':18} {report.old_ms:8.1f} → {report.new_ms:.1f}")
    taps = report.taps
    for title, difference in (
        ("impression", taps.per_impression),
        ("looked-at slot", taps.per_look),
    ):
        print(f"\n  taps per {title}, off-policy:")
        for name, estimate in (("old", taps.old), ("new", taps.new)):
            value = estimate.per_impression if title == "impression" else estimate.per_look
            print(f"  {name:18} {_with_bounds(value)}")
        print(f"  {'new less old':18} {_signed(difference)}")
    print()
    for name, estimate in (("old", taps.old), ("new", taps.new)):
        print(f"  {name:18} {_support(estimate)}")
    print(f"\n{report.verdict}")


def _signed(interval: Interval) -> str:
    return _with_bounds(interval, "+")


def _with_bounds(interval: Interval, sign: str = "") -> str:
    """The value and its interval; a dash where nothing was counted."""
    if math.isnan(interval.value):
        return f"{'–':>8}"
    return f"{interval.value:{sign}8.4f}  [{interval.low:{sign}.4f}, {interval.high:{sign}.4f}]"


def _support(estimate: Estimate) -> str:
    return (
        f"lists what got {estimate.supported:,} of {estimate.clicks:,} taps, "
        f"effective sample {estimate.effective:,.0f}"
    )
