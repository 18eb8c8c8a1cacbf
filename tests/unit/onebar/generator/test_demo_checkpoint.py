"""The demo checkpoint can be built again, in one call, from the simulator alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from onebar.evaluation.facts import facts
from onebar.generator.checkpoint import open_checkpoint
from onebar.stack.demo_checkpoint import PRESET, build_demo_checkpoint
from onebar.training.recipe import RECIPES


@pytest.mark.timeout(240)
def test_one_call_builds_and_measures_it_and_another_goes_on(tmp_path: Path) -> None:
    out, work = tmp_path / "demo", tmp_path / "work"
    short = {stage: {"steps": 1, "batch_size": 8, "threads": 1} for stage in RECIPES[PRESET]}

    def build() -> Path:
        return build_demo_checkpoint(
            out, work=work, seeds=(1, 2), events=1_000, held_out_events=3_000,
            changes=short, measure=facts,
        )  # fmt: skip

    checkpoint = open_checkpoint(build())
    assert checkpoint.has_ctranslate2
    assert not checkpoint.has_weights
    assert checkpoint.card.training["stage"] == list(RECIPES[PRESET])[-1]
    assert checkpoint.card.training["dataset"]["source"]["languages"] == ["en", "zh"]
    measured = checkpoint.card.training["held_out"]["stages"]
    assert list(measured) == [stage for stage in RECIPES[PRESET] if stage != "pretrain"]
    for stage in measured.values():
        assert stage["clicks"] > 0
        assert stage["rejects"] > 0
        assert stage["anchors_hr@8"][0] > 0
    # Nothing is trained again: the same weights under the same name.
    trained = [path.stat().st_mtime_ns for path in sorted(work.rglob("model.safetensors"))]
    assert open_checkpoint(build()).name == checkpoint.name
    assert [p.stat().st_mtime_ns for p in sorted(work.rglob("model.safetensors"))] == trained
