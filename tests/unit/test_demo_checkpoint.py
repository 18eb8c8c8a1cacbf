"""The demo checkpoint can be built again, in one call, from the simulator alone."""

from __future__ import annotations

from pathlib import Path

from onebar.checkpoint import open_checkpoint
from stream.demo_checkpoint import LANGUAGES, build_demo_checkpoint


def test_one_call_builds_and_measures_it(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    built = build_demo_checkpoint(out, minutes=0.02, events=2_000, held_out_events=1_000, threads=1)
    checkpoint = open_checkpoint(built)
    facts = checkpoint.card.training
    assert checkpoint.has_ctranslate2
    assert not checkpoint.has_weights
    assert facts["log"]["events_per_language"] == 2_000
    for lang in LANGUAGES:
        assert facts["held_out"][lang]["clicks"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
