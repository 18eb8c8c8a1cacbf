"""What a dataset is made with: one record, every knob in it."""

from __future__ import annotations

from msgspec import Struct

from onebar.errors import OneBarError
from onebar.evidence.prompt import PromptConfig
from onebar.policy import StatePolicy
from stream.events.fold import FoldWeights


class DatasetConfigError(OneBarError, ValueError):
    """Settings that describe no dataset. The text names the setting."""


class DatasetConfig(Struct, frozen=True, kw_only=True):
    """How triggers are found, what evidence they get, and how they are split."""

    # Which impressions.
    since: float | None = None
    """UTC epoch seconds: earlier impressions only serve as evidence's past."""
    until: float | None = None
    """UTC epoch seconds: nothing from then on is read."""
    limit: int | None = None
    """At most so many triggers, chosen by a hash."""
    per_video: int | None = None
    """At most so many triggers of one video, chosen by a hash: what keeps the evidence joins of
    very popular videos in bounds."""
    window_s: float = 1800.0
    """How long after an impression a behaviour without its request_id still belongs to it."""
    searches: bool = True
    """Whether a query typed after a video is a target, where it shares a term with the evidence."""
    shown_share: float = 0.0
    """Of impressions with neither, how many of the train part are kept; the valid and the test part
    keep all (the click ranker learns from the one, off-policy evaluation needs the other)."""
    rejects_per_video: int = 2
    max_target_chars: int = 64
    """Longer queries are no targets: they are no queries for a bar."""

    # What was known.
    visibility_lag_s: float = 0.0
    """A behaviour counts as known this long after its `ts`."""
    policy: StatePolicy = StatePolicy()
    weights: FoldWeights = FoldWeights()
    max_anchors: int = PromptConfig().max_anchors
    """As many as serving looks at, for they decide what history is relevant."""
    max_history: int = PromptConfig().max_history

    # Preference lists.
    min_exposures: int = 5
    """Fewer say nothing about a query's click rate."""
    prior_ctr: float = 0.05
    prior_exposures: float = 10.0
    """Click rates are smoothed as if each query had been seen so often at `prior_ctr`."""
    pool_size: int = 32
    """Popular queries of a category among which level 6 is chosen."""

    # Splits, by time.
    valid: float = 0.1
    test: float = 0.1
    seed: int = 0

    def check(self) -> None:
        """Raises `DatasetConfigError`."""
        for name in ("valid", "test", "shown_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise DatasetConfigError(f"{name} is a share of 0 to 1, not {getattr(self, name)}")
        if self.valid + self.test >= 1:
            raise DatasetConfigError(
                f"valid and test leave nothing to train on: {self.valid} + {self.test}"
            )
        if self.visibility_lag_s < 0 or self.window_s <= 0:
            raise DatasetConfigError("visibility_lag_s must be 0 or more, window_s more than 0")
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise DatasetConfigError("since must be before until")
