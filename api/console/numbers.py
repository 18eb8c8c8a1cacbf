"""What Prometheus would scrape, as numbers that a page can chart; pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from msgspec import Struct, field
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample as PrometheusSample

PREFIXES = ("onebar_", "process_resident_memory_bytes", "process_cpu_seconds")


class Sample(Struct, frozen=True):
    """One series of a counter or gauge, by its labels."""

    labels: dict[str, str]
    value: float


class Distribution(Struct, frozen=True):
    """One series of a histogram: `counts[i]` observations were at most `bounds[i]`; there were
    `count` in all, and `sum` is their sum."""

    labels: dict[str, str]
    bounds: list[float]
    counts: list[float]
    sum: float
    count: float


class Numbers(Struct, frozen=True):
    """The series of one process, by metric. Counters are named as in the code, without `_total`."""

    values: dict[str, list[Sample]]
    distributions: dict[str, list[Distribution]]


def read_numbers(text: str, prefixes: Iterable[str] = PREFIXES) -> Numbers:
    """The counters, gauges and histograms of ours in what /metrics says. Raises `ValueError` for
    what is no Prometheus text."""
    wanted = tuple(prefixes)
    values: dict[str, list[Sample]] = {}
    distributions: dict[str, list[Distribution]] = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith(wanted) or family.name.endswith("_created"):
            continue
        if family.type == "histogram":
            distributions[family.name] = _distributions(family.samples)
            continue
        values[family.name] = [
            Sample(dict(sample.labels), sample.value)
            for sample in family.samples
            if not sample.name.endswith("_created") and isfinite(sample.value)
        ]
    return Numbers(values, distributions)


class _Series(Struct):
    buckets: list[tuple[float, float]] = field(default_factory=list)
    sum: float = 0.0
    count: float = 0.0


def _distributions(samples: Iterable[PrometheusSample]) -> list[Distribution]:
    every: dict[tuple[tuple[str, str], ...], _Series] = {}
    for sample in samples:
        labels = dict(sample.labels)
        bound = float(labels.pop("le", "inf"))
        series = every.setdefault(tuple(sorted(labels.items())), _Series())
        if sample.name.endswith("_sum"):
            series.sum = sample.value
        elif sample.name.endswith("_count"):
            series.count = sample.value
        elif sample.name.endswith("_bucket") and isfinite(bound):
            series.buckets.append((bound, sample.value))
    return [
        Distribution(
            dict(labels),
            [bound for bound, _ in sorted(series.buckets)],
            [count for _, count in sorted(series.buckets)],
            series.sum,
            series.count,
        )
        for labels, series in every.items()
    ]
