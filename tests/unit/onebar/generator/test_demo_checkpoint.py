"""The demo checkpoint can be built again, in one call, from word lists and the simulator."""

from __future__ import annotations

from pathlib import Path

import pytest
from word_lists import word_lists

from onebar.evaluation.facts import facts
from onebar.evidence.tokens import RESERVED
from onebar.generator.checkpoint import LEXICON, OUTPUTS, WEIGHTS, open_checkpoint
from onebar.recommending.grounding import Lexicon
from onebar.stack.demo_checkpoint import build_demo_checkpoint


@pytest.mark.program
@pytest.mark.timeout(240)
def test_one_call_builds_and_measures_it_and_another_goes_on(tmp_path: Path) -> None:
    out, work, words = tmp_path / "demo", tmp_path / "work", word_lists(tmp_path / "words")

    def build() -> Path:
        return build_demo_checkpoint(
            out, work=work, words=words, composed=300, seeds=(1, 2), events=1_000,
            held_out_events=3_000, held_out_composed=40, measure=facts,
            changes={"steps": 1, "batch_size": 8, "threads": 1, "bf16": False},
        )  # fmt: skip

    checkpoint = open_checkpoint(build())
    assert checkpoint.has_ctranslate2
    assert checkpoint.optional(WEIGHTS) is None
    assert checkpoint.card.training["stage"] == "sft"
    source = checkpoint.card.training["dataset"]["source"]
    assert source["languages"] == ["en", "zh"]
    assert source["licences"]
    assert set(source["words"]) == {path.name for path in words.iterdir()} | {"thuocl.txt.gz"}
    measured = checkpoint.card.training["held_out"]
    for stage in (measured["simulated"], measured["composed"]):
        assert stage["clicks"] > 0
        assert stage["rejects"] > 0
    # Nothing is trained again: the same weights under the same name.
    trained = [path.stat().st_mtime_ns for path in sorted(work.rglob("model.safetensors"))]
    assert open_checkpoint(build()).name == checkpoint.name
    assert [p.stat().st_mtime_ns for p in sorted(work.rglob("model.safetensors"))] == trained


def test_the_shipped_one_knows_words_and_can_not_halve_a_character() -> None:
    shipped = open_checkpoint()
    tokenizer = shipped.tokenizer()
    lexicon = Lexicon.load(shipped.need(LEXICON))
    assert all(word in lexicon for word in ("backpack", "waterproof", "收纳", "羽绒服"))
    assert "volumumizing" not in lexicon
    assert shipped.card.generation.floor is not None
    assert shipped.card.generation.floor < 0
    entries = tokenizer.ids(_entries(shipped.need(OUTPUTS)))
    assert all("\ufffd" not in tokenizer.decode([entry]) for entry in entries)
    assert set(tokenizer.ids(RESERVED)) <= set(entries)
    for char in "的一是不了鞋服裤防水羽绒跑步猫狗锅ก์あ":
        assert len(tokenizer.pieces([char])[0]) <= 2  # the space before it, and itself


def _entries(path: Path) -> list[str]:
    import json

    found: list[str] = json.loads(path.read_bytes())
    return found
