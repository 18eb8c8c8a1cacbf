"""`onebar train`: from the command line to checkpoints, and what is said of wrong settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import toy_dataset
from typer.testing import CliRunner

from onebar.cli.main import app
from onebar.generator.checkpoint import open_checkpoint
from onebar.training.recipe import RECIPES, STAGES, UnknownSettingError, stage_config, train_all
from onebar.training.run import RunConfig

STEPS = [f"--set={stage}.steps=2" for stage in ("pretrain", "sft", "listwise", "piopd")]
STEPS.append("--set=piopd.least_gain=-1")


def names_of(out: Path) -> list[str]:
    return [open_checkpoint(out / stage).name for stage in RECIPES["tiny"]]


def test_all_stages_in_a_row_and_again_from_where_they_stopped(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "dataset", 300)
    out = tmp_path / "out"
    command = ["train", "all", str(dataset.path), "--out", str(out), "--preset", "tiny"]
    done = CliRunner().invoke(app, [*command, "--device", "cpu", *STEPS[1:]])
    assert done.exit_code == 0, done.output
    assert done.output.rstrip().endswith(str(out / "piopd"))
    parents = [
        open_checkpoint(out / stage).card.training["parent"] for stage in ("listwise", "piopd")
    ]
    names = names_of(out)
    assert parents == names[:2]
    for stage in RECIPES["tiny"]:
        validation = open_checkpoint(out / stage).card.training["validation"]
        assert validation["best_step"] == 2

    again = CliRunner().invoke(app, [*command, "--device", "cpu", *STEPS[1:]])
    assert again.exit_code == 0
    assert names_of(out) == names
    assert again.output.count("stage_is_there") == 3

    # Other settings for the last stage: only that runs anew.
    changed = CliRunner().invoke(
        app, [*command, "--device", "cpu", *STEPS[1:], "--set=piopd.seed=3"]
    )
    assert changed.exit_code == 0
    assert names_of(out)[:2] == names[:2]
    assert names_of(out)[2] != names[2]


def test_one_stage_with_settings_of_its_own(tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "dataset", 100)
    done = CliRunner().invoke(
        app,
        [
            "train", "sft", str(dataset.path), "--out", str(tmp_path / "c"), "--preset", "tiny",
            "--steps", "2", "--batch-size", "4", "--device", "cpu",
            "--set", "prompt.history=false", "--set", "smoothing=0.1", "--set", "progress=false",
        ],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    card = open_checkpoint(tmp_path / "c").card
    assert not card.prompt.history
    assert card.training["settings"]["smoothing"] == 0.1
    assert card.training["steps"] == 2


@pytest.mark.parametrize("stage", STAGES)
def test_every_recipe_names_settings_there_are(stage: str) -> None:
    for recipe in RECIPES.values():
        if stage in recipe:
            config = stage_config(stage, {**recipe[stage], "dataset": "d", "out": "o"})
            assert isinstance(config, RunConfig)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"bta": 1}, "no setting bta; it has .*beta"),
        ({"beta": "much"}, r"Expected `float`.*\$\.beta"),
        ({"dataset": "d"}, "missing required field `out`"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, object], told: str) -> None:
    with pytest.raises(UnknownSettingError, match=told):
        stage_config("listwise", values)


def test_an_unknown_stage_or_a_lone_name_is_a_usage_error(tmp_path: Path) -> None:
    for wrong in ("sft.steps", "=3", "sfft.steps=2"):
        done = CliRunner().invoke(
            app, ["train", "all", "d", "--out", str(tmp_path / "o"), "--set", wrong]
        )
        assert done.exit_code == 2, wrong
    assert not (tmp_path / "o").exists()


def test_a_pretrained_start_needs_no_pretraining(tmp_path: Path, toy_checkpoint: object) -> None:
    dataset = toy_dataset(tmp_path / "dataset", 100)
    common = {"dataset": str(dataset.path), "device": "cpu", "progress": False, "batch_size": 4}
    out = tmp_path / "out"
    changes = {stage: {"steps": 1} for stage in STAGES}
    path = getattr(toy_checkpoint, "path")  # noqa: B009
    train_all(out, common, preset="small", init=str(path), changes=changes)
    assert not (out / "pretrain").exists()
    assert open_checkpoint(out / "sft").card.preset == "tiny"
