"""What a bar of written queries is worth, by the click ranker: the reward of `onebar train
reinforce`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp

from msgspec import Struct
from msgspec.structs import replace

from onebar.evaluation.predict import material_of
from onebar.generator.checkpoint import Checkpoint, CheckpointMismatchError
from onebar.ranking.overlap import likeness
from onebar.recommending.candidates import proposals
from onebar.recommending.grounding import presentable, trimmed
from onebar.recommending.loading import open_taste
from onebar.recommending.pool import SPANS
from onebar.recommending.variety import SHARPNESS
from onebar.records import Candidate
from onebar.triggers import Trigger

LOOKED = (1.0, 0.8, 0.65, 0.55, 0.45, 0.4, 0.35, 0.3)
"""How likely a place is looked at, where the ranker's card does not say."""


class RewardConfig(Struct, frozen=True, kw_only=True):
    """How what must not be shown, and what was said already, counts."""

    refused: float = 0.05
    """What a query costs that would not be shown: broken, unfinished, ungrounded, no word, harmful,
    or a rejection where people tapped. A tap is worth 1."""
    variety: float = 0.5
    """How much less a query is worth in a list that has one like it
    (`onebar.recommending.variety`); one that stands in it already is worth nothing there."""


class Worth(Struct, frozen=True):
    """The reward of some lists (`onebar.training.reinforce.stage.Rewarded`)."""

    queries: tuple[tuple[float, ...], ...]
    lists: tuple[float, ...]
    allowed: float


class TapReward:
    """By how likely each query is tapped, as the ranker of a checkpoint sees it among all that
    might stand in the bar; the lists by the taps that they would get."""

    def __init__(self, checkpoint: Checkpoint, config: RewardConfig | None = None) -> None:
        """Raises `CheckpointError`: `CheckpointMismatchError` where there is no click ranker."""
        taste = open_taste(checkpoint)
        if taste.scorer is None:
            raise CheckpointMismatchError(
                f"{checkpoint.name} has no click ranker, which is what rewards: make it one with "
                "`onebar train clicks --init` this checkpoint"
            )
        self._config = config or RewardConfig()
        self._scorer = taste.scorer
        self._taste = replace(taste, scorer=None)
        learned = checkpoint.card.training.get("clicks", {})
        self._looked: Sequence[float] = learned.get("propensity") or LOOKED
        self.name = f"{taste.scorer.digest} {self._config.refused} {self._config.variety}"

    def __call__(self, trigger: Trigger, lists: Sequence[Sequence[Candidate]]) -> Worth:
        """The worth of lists of one impression, the queries of each in their order."""
        chances = self._chances(trigger, [one for each in lists for one in each])
        rewards = []
        totals = []
        allowed = 0
        for each in lists:
            texts = [presentable(trimmed(one.text)) for one in each]
            rewards.append(tuple(chances.get(text, -self._config.refused) for text in texts))
            allowed += sum(text in chances for text in texts)
            totals.append(self._taps(texts, chances))
        written = sum(map(len, lists))
        return Worth(tuple(rewards), tuple(totals), allowed / max(1, written))

    def _chances(self, trigger: Trigger, written: Sequence[Candidate]) -> Mapping[str, float]:
        """How likely each query is tapped where it is looked at, of those that may be shown."""
        best: dict[str, float] = {}
        for one in written:
            best[one.text] = max(one.score, best.get(one.text, one.score))
        order = sorted(best.items(), key=lambda item: (-item[1], item[0]))
        beam = [Candidate(text, score) for text, score in order]
        material = material_of(trigger)
        found = proposals(material, beam, self._taste, exact=True, spans=SPANS)
        scores = self._scorer.scores(found, material)
        return {
            one.text: 1.0 / (1.0 + exp(-score))
            for one, score in zip(found, scores, strict=True)
            if one.beam is not None
        }

    def _taps(self, texts: Sequence[str], chances: Mapping[str, float]) -> float:
        """Taps that a list would get, less what stands in it that must not."""
        total = 0.0
        stand: list[str] = []
        for at, text in enumerate(texts):
            if text not in chances:
                total -= self._config.refused
                continue
            if text in stand:
                continue
            worth = chances[text]
            for other in stand:
                worth *= 1 - self._config.variety * likeness(text, other) ** SHARPNESS
            total += self._looked[min(at, len(self._looked) - 1)] * worth
            stand.append(text)
        return total
