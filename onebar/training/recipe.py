"""The stages in a row: pre-training, SFT, list-wise DPO, PIOPD, each from the one before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from onebar.errors import OneBarError
from onebar.generator.checkpoint import CARD, open_checkpoint
from onebar.training.listwise import ListwiseConfig, train_listwise
from onebar.training.piopd import PIOPDConfig, train_piopd
from onebar.training.pretrain import PretrainConfig, train_pretrain
from onebar.training.privileged import TeacherGainsNothingError
from onebar.training.run import RunConfig
from onebar.training.sft import SFTConfig, train_sft

log = structlog.get_logger(__name__)


class StageKind(Struct, frozen=True):
    """A stage by name: its settings, and what runs it."""

    config: type[RunConfig]
    run: Callable[[Any], Path]


STAGES: dict[str, StageKind] = {
    "pretrain": StageKind(PretrainConfig, train_pretrain),
    "sft": StageKind(SFTConfig, train_sft),
    "listwise": StageKind(ListwiseConfig, train_listwise),
    "piopd": StageKind(PIOPDConfig, train_piopd),
}

Settings = Mapping[str, Any]

RECIPES: dict[str, dict[str, Settings]] = {
    "tiny": {
        "sft": {"steps": 200, "batch_size": 32},
        "listwise": {"steps": 20, "batch_size": 16, "learning_rate": 3e-4},
        "piopd": {"steps": 20, "batch_size": 16, "learning_rate": 1e-4},
    },
    "demo": {
        "pretrain": {"steps": 600, "batch_size": 64},
        "sft": {"steps": 2400, "batch_size": 64, "privileged": 0.2, "pointing": 0.5},
        "listwise": {"steps": 200, "batch_size": 32, "learning_rate": 1e-4},
        "piopd": {
            "steps": 150,
            "batch_size": 32,
            "learning_rate": 1e-4,
            "dropout": 0.05,
            "r_drop_weight": 0.5,
        },
    },
}
"""Stages and what of their settings differs from the defaults, by preset. Others take the paper's
settings after pre-training from scratch (`PAPER`)."""

PAPER: dict[str, Settings] = {"pretrain": {}, "sft": {}, "listwise": {}, "piopd": {}}


class UnknownSettingError(OneBarError, ValueError):
    """A setting that a stage doesn't have, or a value that isn't one."""


def stage_config(stage: str, values: Settings) -> RunConfig:
    """The settings of a stage from plain values. Raises `UnknownSettingError`, which names what
    there is."""
    kind = STAGES[stage].config
    unknown = set(values) - set(kind.__struct_fields__)
    if unknown:
        raise UnknownSettingError(
            f"{stage} has no setting {', '.join(sorted(unknown))}; it has "
            f"{', '.join(sorted(kind.__struct_fields__))}"
        )
    try:
        return msgspec.convert(values, kind, strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise UnknownSettingError(f"{stage}: {error}") from None


def _path(kind: type, value: object) -> object:
    if kind is not Path or not isinstance(value, str):
        raise NotImplementedError
    return Path(value)


def train(stage: str, dataset: Path | str, out: Path | str, **settings: Any) -> Path:
    """Run one stage (a key of `STAGES`) over a dataset and write its checkpoint to `out`; the path.

    `settings` are those of the stage, such as `preset`, `init`, `steps` or `learning_rate`. A run
    that was interrupted goes on where it stopped. Raises `UnknownSettingError`, `DatasetError`,
    `CheckpointError`.
    """
    if stage not in STAGES:
        raise UnknownSettingError(f"no stage {stage!r}; there are {', '.join(STAGES)}")
    values = {"dataset": str(dataset), "out": str(out), **settings}
    plain = {
        name: str(value) if isinstance(value, Path) else value for name, value in values.items()
    }
    return STAGES[stage].run(stage_config(stage, plain))


def train_all(
    out: Path,
    common: Settings,
    *,
    preset: str,
    init: str | None = None,
    recipe: Mapping[str, Settings] | None = None,
    changes: Mapping[str, Settings] | None = None,
) -> Path:
    """Run the preset's recipe, or another `recipe`, into `out/STAGE`, each stage from the one
    before; the last's path.

    A stage whose checkpoint is there already is passed over, so an interrupted row goes on where
    it stopped. `common` goes to every stage, `changes` to the one it names; with an `init` there is
    no pre-training. A PIOPD whose teacher gains nothing by seeing the click is left out, and told.
    """
    recipe = RECIPES.get(preset, PAPER) if recipe is None else recipe
    before = init
    for stage, settings in recipe.items():
        if stage == "pretrain" and init is not None:
            continue
        path = out / stage
        values = {**settings, **common, **(changes or {}).get(stage, {})}
        config = stage_config(stage, {**values, "out": str(path), "init": before, "preset": preset})
        if (path / CARD).is_file() and _made_by(path, config):
            log.info("stage_is_there", stage=stage, checkpoint=open_checkpoint(path).name)
        else:
            try:
                STAGES[stage].run(config)
            except TeacherGainsNothingError as error:
                log.warning("stage_left_out", stage=stage, reason=str(error))
                break
        before = str(path)
    return Path(str(before))


def _made_by(path: Path, config: RunConfig) -> bool:
    """Whether the checkpoint came of just these settings."""
    return open_checkpoint(path).card.training.get("fingerprint") == config.fingerprint
