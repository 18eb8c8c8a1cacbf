"""What came of a loop: by policy and over time, and one policy against another."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from onebar.evaluation.metrics import Interval
from stream.simulator.config import SimulatorConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 1000
SEED = 20260105
COLD = 3
"""A video is cold until it was shown so often."""
HEAD = 0.01
"""Share of the different queries that are the head."""


class Seen(Struct, frozen=True, gc=False):
    """One bar, before one user. `chances` are the true ones of a tap at each position where none
    before it was tapped; `before` is how often the video was shown before; `ms` what the call took
    that it was asked in."""

    at: float
    user_id: str
    arm: int
    source: str
    rejected: bool
    sensitive: bool
    queries: tuple[str, ...]
    chances: tuple[float, ...]
    tapped: int | None
    before: int
    new: bool
    model: str | None = None
    ms: float = 0.0

    @property
    def true_tap(self) -> float:
        """How likely this bar is tapped at all, by the hidden truth."""
        left = 1.0
        for chance in self.chances:
            left *= 1.0 - chance
        return 1.0 - left


class Share(Struct, frozen=True):
    """Bars of one kind: how many, how likely they are tapped by the truth, and how often they
    were."""

    bars: int
    true_tap: float
    ctr: float


class Window(Struct, frozen=True):
    """A stretch of simulated time; `day` is when it ends, in days from the start.

    `empty` is the share of bars without a query; `distinct` different queries among those shown;
    `varied` how different the queries of one bar are (1 less the mean overlap of their words);
    `head` the share of all that was shown that the 1 % most shown queries make; `drift` how far
    what was shown is from the window before (Jensen-Shannon divergence, 0 to 1; NaN for the
    first).
    """

    day: float
    bars: int
    true_tap: float
    ctr: float
    empty: float
    distinct: float
    varied: float
    head: float
    drift: float
    cold: Share
    new: Share


class PolicyReport(Struct, frozen=True):
    """How one policy did. `true_tap` and `ctr` have 95 % intervals over users; `sensitive_shown`
    is the share of bars under videos that must carry none that had a query; `ms` are of a call
    with all visits of a turn, median and 99th percentile."""

    name: str
    users: int
    bars: int
    true_tap: Interval
    ctr: Interval
    empty: float
    rejected: float
    sensitive_shown: float
    by_source: dict[str, Share]
    cold: Share
    warm: Share
    new: Share
    ms_median: float
    ms_99: float
    models: tuple[str, ...]
    windows: tuple[Window, ...]


class Difference(Struct, frozen=True):
    """A policy less the first one, with 95 % intervals over the users of both."""

    policy: str
    less: str
    true_tap: Interval
    ctr: Interval


class LoopReport(Struct, frozen=True):
    """What `onebar simulate --policy … --json` prints."""

    seed: int
    world: dict[str, Any]
    events: int
    seconds: float
    policies: tuple[PolicyReport, ...]
    differences: tuple[Difference, ...]


def make_report(
    config: SimulatorConfig,
    names: Sequence[str],
    seen: Sequence[Seen],
    *,
    windows: int,
    events: int,
    seconds: float,
) -> LoopReport:
    """The report of all bars that were seen. `windows` are of equal simulated time."""
    first = msgspec.to_builtins(SimulatorConfig())
    plain = msgspec.to_builtins(config)
    mine = [[each for each in seen if each.arm == arm] for arm in range(len(names))]
    drawn = [_resampled(*_by_user(bars), SEED + arm) for arm, bars in enumerate(mine)]
    return LoopReport(
        seed=config.seed,
        world={name: value for name, value in plain.items() if value != first[name]},
        events=events,
        seconds=round(seconds, 1),
        policies=tuple(
            _policy(name, bars, config, windows, rates)
            for name, bars, rates in zip(names, mine, drawn, strict=True)
        ),
        differences=tuple(
            Difference(name, names[0], *_less(drawn[0], rates))
            for name, rates in zip(names[1:], drawn[1:], strict=True)
        ),
    )


def _policy(
    name: str,
    bars: Sequence[Seen],
    config: SimulatorConfig,
    windows: int,
    rates: tuple[_Resampled, _Resampled],
) -> PolicyReport:
    times = sorted(each.ms for each in bars)
    risky = [each for each in bars if each.sensitive]
    sources = sorted({each.source for each in bars})
    return PolicyReport(
        name=name,
        users=len({each.user_id for each in bars}),
        bars=len(bars),
        true_tap=rates[0].interval(),
        ctr=rates[1].interval(),
        empty=_mean([not each.queries for each in bars]),
        rejected=_mean([each.rejected for each in bars]),
        sensitive_shown=_mean([bool(each.queries) for each in risky]),
        by_source={
            source: _share([each for each in bars if each.source == source]) for source in sources
        },
        cold=_share([each for each in bars if each.before < COLD]),
        warm=_share([each for each in bars if each.before >= COLD]),
        new=_share([each for each in bars if each.new]),
        ms_median=_quantile(times, 0.5),
        ms_99=_quantile(times, 0.99),
        models=tuple(dict.fromkeys(each.model for each in bars if each.model)),
        windows=tuple(_windows(bars, config, windows)),
    )


def _windows(bars: Sequence[Seen], config: SimulatorConfig, windows: int) -> list[Window]:
    width = config.days * 86400 / windows
    parts: list[list[Seen]] = [[] for _ in range(windows)]
    for each in bars:
        parts[min(windows - 1, int((each.at - config.start_ts) / width))].append(each)
    found: list[Window] = []
    before: Counter[str] | None = None
    for number, part in enumerate(parts):
        shown = Counter(query for each in part for query in each.queries)
        whole = _share(part)
        found.append(
            Window(
                day=round((number + 1) * config.days / windows, 3),
                bars=len(part),
                true_tap=whole.true_tap,
                ctr=whole.ctr,
                empty=_mean([not each.queries for each in part]),
                distinct=len(shown) / shown.total() if shown else math.nan,
                varied=_mean([varied(each.queries) for each in part if len(each.queries) > 1]),
                head=head(shown),
                drift=math.nan if before is None else divergence(before, shown),
                cold=_share([each for each in part if each.before < COLD]),
                new=_share([each for each in part if each.new]),
            )
        )
        before = shown
    return found


def _share(bars: Sequence[Seen]) -> Share:
    return Share(
        len(bars),
        _mean([each.true_tap for each in bars]),
        _mean([each.tapped is not None for each in bars]),
    )


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 6) if values else math.nan


def _quantile(ordered: Sequence[float], share: float) -> float:
    if not ordered:
        return math.nan
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)


def varied(queries: Sequence[str]) -> float:
    """1 less the mean overlap (Jaccard) of the words of two queries: of character pairs where a
    text has no spaces."""
    sets = [_parts(query) for query in queries]
    overlaps = [
        len(a & b) / max(1, len(a | b)) for at, a in enumerate(sets) for b in sets[at + 1 :]
    ]
    return 1.0 - sum(overlaps) / len(overlaps) if overlaps else math.nan


def _parts(query: str) -> frozenset[str]:
    if " " in query or query.isascii():
        return frozenset(query.split())
    return frozenset(query[at : at + 2] for at in range(max(1, len(query) - 1)))


def head(shown: Counter[str]) -> float:
    """What part of all that was shown the most shown 1 % of the different queries make."""
    if not shown:
        return math.nan
    most = shown.most_common(max(1, round(HEAD * len(shown))))
    return sum(count for _, count in most) / shown.total()


def divergence(a: Counter[str], b: Counter[str]) -> float:
    """Jensen-Shannon divergence in bits: 0 for equal shares, 1 where nothing is in both."""
    if not a or not b:
        return math.nan
    total_a, total_b = a.total(), b.total()
    value = 0.0
    for query in a.keys() | b.keys():
        p, q = a[query] / total_a, b[query] / total_b
        m = (p + q) / 2
        value += (p * math.log2(p / m) if p else 0.0) / 2 + (q * math.log2(q / m) if q else 0.0) / 2
    return min(1.0, max(0.0, value))


class _Resampled(Struct, frozen=True):
    """A rate, and what it is in resamples of the users."""

    value: float
    samples: Any

    def interval(self) -> Interval:
        return _bounds(self.value, self.samples)


def _by_user(bars: Sequence[Seen]) -> tuple[Any, Any, Any]:
    """By user: bars, true taps, taps."""
    import numpy as np

    users: dict[str, list[float]] = {}
    for each in bars:
        sums = users.setdefault(each.user_id, [0.0, 0.0, 0.0])
        sums[0] += 1
        sums[1] += each.true_tap
        sums[2] += each.tapped is not None
    table = np.array(list(users.values()), dtype=np.float64).reshape(-1, 3)
    return table[:, 0], table[:, 1], table[:, 2]


def _resampled(bars: Any, true_taps: Any, taps: Any, seed: int) -> tuple[_Resampled, _Resampled]:
    """True tap and CTR, a bar, with a bootstrap over users: what one user does is no two things."""
    import numpy as np

    many = len(bars)
    if not many:
        nothing = _Resampled(math.nan, np.array([]))
        return nothing, nothing
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(many, np.full(many, 1 / many), size=RESAMPLES).astype(np.float64)
    below: NDArray[Any] = weights @ bars
    return (
        _Resampled(float(true_taps.sum() / bars.sum()), (weights @ true_taps) / below),
        _Resampled(float(taps.sum() / bars.sum()), (weights @ taps) / below),
    )


def _less(
    first: tuple[_Resampled, _Resampled], other: tuple[_Resampled, _Resampled]
) -> tuple[Interval, Interval]:
    """`other` less `first`: the users of the two are different ones, so are their resamples."""
    found = []
    for a, b in zip(first, other, strict=True):
        samples = b.samples - a.samples if len(a.samples) and len(b.samples) else []
        found.append(_bounds(b.value - a.value, samples))
    return found[0], found[1]


def _bounds(value: float, samples: Any) -> Interval:
    import numpy as np

    if not len(samples) or math.isnan(value):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(samples, (0.025, 0.975))
    return Interval(round(value, 6), round(float(low), 6), round(float(high), 6))
