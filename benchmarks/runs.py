"""One run of docs/results.md: trained, its candidates generated once, and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from experiments import CLICKS, SIMULATOR
from sources import propensity_of, relevance_of, taps_of
from taps import Ordered, generate

from onebar.evaluation.outcomes import Outcomes, measure
from onebar.generator.checkpoint import open_checkpoint
from onebar.learning.clicks import ClicksConfig, train_clicks
from onebar.learning.reward import RewardConfig, TapReward
from onebar.process.console import progress
from onebar.recommending.loading import open_taste
from onebar.training.recipe import STAGES, stage_config
from onebar.training.reinforce.stage import ReinforceConfig, train_reinforce
from onebar.triggers import Split, Trigger

REINFORCE = "reinforce"
REWARDED_BY = "rewarded_by"


def train_run(stage: str, values: Mapping[str, Any]) -> Path:
    """Train a stage with these settings, or grow a click ranker; the checkpoint. `init` is the
    checkpoint that it goes on from, None for none; `rewarded_by` the one whose click ranker
    rewards, `init` without."""
    if stage == CLICKS:
        mine = {name: values[name] for name in values.keys() & set(ClicksConfig.__struct_fields__)}
        settings = {**mine, "checkpoint": values["init"]}
        config = msgspec.convert(settings, ClicksConfig, dec_hook=_path)
        with progress(f"click ranker, seed {config.seed}") as update:
            return train_clicks(config, lambda phase, share, text: update(share, f"{phase} {text}"))
    if stage == REINFORCE:
        rewarding = {name: values[name] for name in values.keys() & _OF_THE_REWARD}
        others = {name: values[name] for name in values.keys() - _OF_THE_REWARD - {REWARDED_BY}}
        ranker = open_checkpoint(values.get(REWARDED_BY) or values["init"])
        reward = TapReward(ranker, RewardConfig(**rewarding))
        return train_reinforce(msgspec.convert(others, ReinforceConfig, dec_hook=_path), reward)
    return STAGES[stage].run(stage_config(stage, values))


_OF_THE_REWARD = set(RewardConfig.__struct_fields__)


def _path(kind: type, value: object) -> object:
    if kind is not Path or not isinstance(value, str):
        raise NotImplementedError
    return Path(value)


def measure_run(
    checkpoint: Path,
    triggers: Sequence[Trigger],
    work: Path,
    source: str,
    *,
    name: str,
    beams: Path,
    ranked: bool,
    split: Split = "test",
) -> Outcomes:
    """What the checkpoint's candidates are worth on these triggers: in the generator's own order,
    or `ranked` as its click ranker orders them among all others. `beams` keeps the candidates."""
    opened = open_checkpoint(checkpoint)
    beams.parent.mkdir(parents=True, exist_ok=True)
    with progress(f"{name}: generating") as update:
        found = generate(opened, triggers, beams, update)
    simulated = source == SIMULATOR
    with progress(f"{name}: measuring") as update:
        return measure(
            Ordered(name, found, open_taste(opened) if ranked else None),
            triggers,
            relevance=relevance_of(work, source),
            taps=taps_of(work) if simulated else None,
            propensity=propensity_of(work, split) if simulated else None,
            progress=lambda done, of: update(done / of, ""),
        )
