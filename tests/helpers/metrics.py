"""The metrics that the packages define, by their source alone."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {
    "Counter": ("_total",),
    "Gauge": ("",),
    "Histogram": ("_bucket", "_sum", "_count"),
    "BatchHistogram": ("_bucket", "_sum", "_count"),
    "Summary": ("_sum", "_count"),
}


@cache
def _defined() -> list[tuple[str, str, frozenset[str]]]:
    """Every metric's kind, name as the code has it, and labels."""
    found = []
    for package in ("api", "feature_store", "onebar", "stream"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not node.args:
                    continue
                kind = getattr(node.func, "id", getattr(node.func, "attr", ""))
                name = str(getattr(node.args[0], "value", ""))
                if kind in SUFFIXES and name.startswith("onebar_"):  # not the standard library's
                    lists = [each for each in node.args[2:3] if isinstance(each, ast.List)]
                    labels = {str(getattr(item, "value", "")) for li in lists for item in li.elts}
                    found.append((kind, name, frozenset(labels)))
    return found


def labels_of() -> dict[str, frozenset[str]]:
    """The labels of every metric, by its name as the code has it."""
    return {name: labels for _, name, labels in _defined()}


def defined_families() -> set[str]:
    """Every metric's name, without what its series have behind it."""
    return {name.removesuffix("_total") for _, name, _ in _defined()}


def defined_metrics() -> set[str]:
    """Every time series name that they export."""
    return {
        name.removesuffix("_total") + suffix
        for kind, name, _ in _defined()
        for suffix in SUFFIXES[kind]
    }


def used_metrics(text: str) -> set[str]:
    """Those that a text names."""
    return set(re.findall(r"\bonebar_[a-z0-9_]+\b", text))
