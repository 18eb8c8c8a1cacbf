"""What an evaluation says: plain data for programs, tables for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from onebar.evaluation.metrics import Interval, compare, holm, summary
from onebar.evaluation.outcomes import Outcomes

CLICKED = ("hr@1", "hr@{k}", "mrr@{k}", "ed_hr@{k}", "bleu@{k}", "hung_f1@{k}")
TAPPED = ("true_tap@1", "true_tap@{k}", "ips_taps@{k}", "snips_taps@{k}")
OTHER = (
    *("reject_precision", "reject_recall", "answered", "distinct_first", "entropy_first"),
    *("diversity@{k}", "repeats@{k}", "coverage", "relevance@{k}", "relevant@{k}", "bas@{k}"),
)
SURE = 0.05
"""The corrected p below which a difference is marked with a star."""
HEADLINES = ("hr@1", "hr@{k}", "mrr@{k}", "true_tap@{k}", "ips_taps@{k}")
"""What the rows are compared by: the family that `p_holm` is corrected for."""
LABELS = {
    "hr": "HR",
    "mrr": "MRR",
    "ed_hr": "ED-HR",
    "bleu": "BLEU",
    "bas": "BAS",
    "hung_f1": "CTR-HungF1",
    "true_tap": "true tap",
    "ips_taps": "IPS taps",
    "snips_taps": "SNIPS taps",
    "reject_precision": "reject precision",
    "reject_recall": "reject recall",
    "distinct_first": "distinct first",
    "entropy_first": "entropy first",
}


def report(outcomes: Sequence[Outcomes]) -> list[dict[str, Any]]:
    """One object a predictor: its metrics, their paired difference to the first predictor's, and
    the metrics of each slice. A value is [value, low, high], null where nothing was counted. `p`
    has how likely such differences of `HEADLINES` are where there are none, corrected for the
    number of all such comparisons in the report (Holm)."""
    found = []
    for row in outcomes:
        said: dict[str, Any] = {
            "name": row.name,
            "k": row.k,
            "triggers": len(row),
            "clicks": int(row.has_target.sum()),
            "rejects": int(row.is_reject.sum()),
            "metrics": _plain(summary(row)),
        }
        if row is not outcomes[0]:
            less = compare(outcomes[0], row)
            said["less_first"] = _plain(less)
            said["p"] = {name: less[name].p for name in _headlines(row.k) if name in less}
        if row.slices:
            said["slices"] = {
                name: {"triggers": int(mask.sum()), "metrics": _plain(summary(row, mask))}
                for name, mask in row.slices.items()
            }
        found.append(said)
    corrected = holm(
        {f"{at}:{name}": p for at, one in enumerate(found) for name, p in one.get("p", {}).items()}
    )
    for at, one in enumerate(found):
        for name in one.get("p", {}):
            one["p"][name] = round(corrected[f"{at}:{name}"], 5)
    return found


def _headlines(k: int) -> list[str]:
    return [name.format(k=k) for name in HEADLINES]


def _plain(metrics: dict[str, Interval]) -> dict[str, list[float | None]]:
    return {
        name: [None if math.isnan(v) else round(v, 6) for v in (i.value, i.low, i.high)]
        for name, i in metrics.items()
    }


def tables(said: Sequence[dict[str, Any]]) -> list[Any]:
    """rich tables of a report: the clicks, everything else, and the slices where there are any."""
    k = said[0]["k"]
    clicked = [name.format(k=k) for name in CLICKED]
    others = [name.format(k=k) for name in OTHER]
    others = [name for name in others if any(name in row["metrics"] for row in said)]
    taps = [name.format(k=k) for name in TAPPED]
    taps = [name for name in dict.fromkeys(taps) if any(name in r["metrics"] for r in said)]
    main = f"true_tap@{k}" if f"true_tap@{k}" in taps else f"ips_taps@{k}"
    found = [
        _table(f"What users clicked ({said[0]['clicks']} clicks)", said, clicked, f"hr@{k}"),
        *([_table("What would be tapped", said, taps, main)] if taps else []),
        _table(f"Beside that ({said[0]['rejects']} rejects)", said, others, None),
    ]
    if "slices" in said[0]:
        found.append(_slice_table(said, (f"hr@{k}", f"mrr@{k}", "answered")))
    return found


def _table(
    title: str, said: Sequence[dict[str, Any]], names: Sequence[str], difference: str | None
) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("")
    shown = [*names, f"less row 1: {difference}"] if difference and len(said) > 1 else list(names)
    for name in shown:
        table.add_column(_label(name), justify="right")
    for row in said:
        cells = [_cell(row["metrics"].get(name)) for name in names]
        if len(shown) > len(names):
            p = row.get("p", {}).get(difference)
            sure = "*" if p is not None and p < SURE else ""
            cells.append(_cell(row.get("less_first", {}).get(difference)) + sure)
        table.add_row(row["name"], *cells)
    return table


def _slice_table(said: Sequence[dict[str, Any]], names: Sequence[str]) -> Any:
    from rich.table import Table

    table = Table(title="By slice", title_justify="left")
    for name in ("slice", "triggers", ""):
        table.add_column(name, justify="right" if name == "triggers" else "left")
    for name in names:
        table.add_column(_label(name), justify="right")
    for slice_name, facts in said[0]["slices"].items():
        for at, row in enumerate(said):
            metrics = row["slices"][slice_name]["metrics"]
            head = ("", "") if at else (slice_name, str(facts["triggers"]))
            table.add_row(*head, row["name"], *(_cell(metrics.get(name)) for name in names))
        table.add_section()
    return table


def _label(name: str) -> str:
    before, colon, metric = name.rpartition(": ")
    base, at, k = metric.partition("@")
    return f"{before}{colon}{LABELS.get(base, base)}{at}{k}"


def _cell(value: Sequence[float | None] | None) -> str:
    """The value, and its interval on a line below."""
    if value is None or value[0] is None:
        return "–"
    places = 1 if abs(value[0]) >= 10 else 4
    if value[1] is None or value[2] is None:
        return f"{value[0]:.{places}f}"
    return f"{value[0]:.{places}f}\n{value[1]:.{places}f} … {value[2]:.{places}f}"
