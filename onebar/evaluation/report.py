"""What an evaluation says: plain data for programs, tables for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from onebar.evaluation.metrics import Interval, compare, summary
from onebar.evaluation.outcomes import Outcomes

CLICKED = ("hr@1", "hr@{k}", "mrr@{k}", "ed_hr@{k}", "bleu@{k}")
OTHER = (
    *("reject_precision", "reject_recall", "answered", "distinct_first", "entropy_first"),
    *("relevance@{k}", "relevant@{k}", "bas@{k}"),
)
LABELS = {
    "hr": "HR",
    "mrr": "MRR",
    "ed_hr": "ED-HR",
    "bleu": "BLEU",
    "bas": "BAS",
    "reject_precision": "reject precision",
    "reject_recall": "reject recall",
    "distinct_first": "distinct first",
    "entropy_first": "entropy first",
}


def report(outcomes: Sequence[Outcomes]) -> list[dict[str, Any]]:
    """One object a predictor: its metrics, their paired difference to the first predictor's, and
    the metrics of each slice. A value is [value, low, high], null where nothing was counted."""
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
            said["less_first"] = _plain(compare(outcomes[0], row))
        if row.slices:
            said["slices"] = {
                name: {"triggers": int(mask.sum()), "metrics": _plain(summary(row, mask))}
                for name, mask in row.slices.items()
            }
        found.append(said)
    return found


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
    found = [
        _table(f"What users clicked ({said[0]['clicks']} clicks)", said, clicked, f"hr@{k}"),
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
            cells.append(_cell(row.get("less_first", {}).get(difference)))
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
