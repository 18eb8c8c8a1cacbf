"""What of a vocabulary queries may use, and that the engines keep to it."""

from __future__ import annotations

import json
from math import inf, nan
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy import toy_dataset, toy_prompts
from typer.testing import CliRunner

from onebar.cli.main import app
from onebar.evidence.tokens import RESERVED, PromptTokenizer
from onebar.generator.checkpoint import (
    OUTPUTS,
    WEIGHTS,
    Checkpoint,
    CheckpointMismatchError,
    open_checkpoint,
)
from onebar.generator.load import load_engine
from onebar.training.models.export import export_again
from onebar.training.models.outputs import LEAST, output_entries, outputs_of, whole_entries
from onebar.training.models.tokenizer import WIDE, train_tokenizer


def test_they_are_those_of_the_queries_and_enough(
    toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    tokenizer = toy_checkpoint.tokenizer()
    found = output_entries(["pink lamp", "连衣裙"], tokenizer)
    assert {*tokenizer.ids(RESERVED), *tokenizer.encode_targets(["pink lamp"])[0]} <= set(found)
    assert len(found) == LEAST
    assert list(found) == sorted(set(found))
    # Those that were not the answer count too.
    dataset = toy_dataset(tmp_path / "dataset", 30)
    assert set(tokenizer.encode_targets(["nothing"])[0]) <= set(outputs_of(dataset, tokenizer))


def test_training_writes_them_and_queries_are_made_of_nothing_else(
    toy_checkpoint: Checkpoint,
) -> None:
    kept = set(json.loads(toy_checkpoint.need(OUTPUTS).read_bytes()))
    tokenizer = toy_checkpoint.tokenizer()
    assert len(kept) < tokenizer.vocab_size
    engine = load_engine(toy_checkpoint, engine="ctranslate2")
    for candidates in engine.generate(toy_prompts(20, seed=4), 8):
        for candidate in candidates:
            assert set(tokenizer.tokens(tokenizer.pieces([candidate.text])[0])) <= kept
    engine.close()


def test_a_checkpoint_is_exported_again_for_others(
    toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    dataset = toy_dataset(tmp_path / "dataset", 20)
    done = CliRunner().invoke(
        app,
        [
            *("train", "export", str(toy_checkpoint.path), str(dataset.path), "--no-weights"),
            *("--out", str(tmp_path / "out"), "--exact-within", "0"),
        ],
    )
    assert done.exit_code == 0, done.output
    made = open_checkpoint(tmp_path / "out")
    assert made.card.training == toy_checkpoint.card.training
    assert made.card.generation.exact_within == 0 < toy_checkpoint.card.generation.exact_within
    assert (made.has_ctranslate2, made.optional(WEIGHTS)) == (True, None)
    # It can be exported once more, from what serves.
    outputs = sorted(made.tokenizer().ids(json.loads(made.need(OUTPUTS).read_bytes())))
    again = export_again(made.path, tmp_path / "another", outputs=outputs, weights=False)
    assert again.card.files[OUTPUTS] == made.card.files[OUTPUTS]
    engines = [load_engine(each, engine="ctranslate2") for each in (made, again)]
    one, other = (engine.generate(toy_prompts(5, seed=9), 4) for engine in engines)
    assert [[c.text for c in each] for each in one] == [[c.text for c in each] for each in other]


def test_float_weights_that_serve_are_those_that_8_bits_hold(
    toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    made = export_again(toy_checkpoint.path, tmp_path / "made")
    again = export_again(made.path, tmp_path / "again")
    before, after = (load_file(each.need(WEIGHTS)) for each in (made, again))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-6, atol=1e-8)
        if tensor.dim() == 2 and "positions" not in name and "logits" not in name:
            steps = 127 * tensor / tensor.abs().amax(dim=1, keepdim=True)
            torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)


def test_a_checkpoint_is_not_written_over_itself(toy_checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointMismatchError, match="itself"):
        export_again(toy_checkpoint.path, toy_checkpoint.path / ".." / toy_checkpoint.path.name)


@pytest.mark.parametrize("value", [inf, -1.0, nan])
def test_how_close_is_close_is_a_number(
    value: float, toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="exact_within"):
        export_again(toy_checkpoint.path, tmp_path / "made", exact_within=value)
    assert not (tmp_path / "made").exists()


def test_a_wide_vocabulary_has_whole_characters_and_queries_are_made_of_them(
    tmp_path: Path,
) -> None:
    texts = [f"{'羽绒服跑步鞋防水收纳盒猫砂' * 2} running shoes {at}" for at in range(50)]
    train_tokenizer(texts, tmp_path / "tokenizer.json", vocab_size=WIDE)
    tokenizer = PromptTokenizer(
        tmp_path / "tokenizer.json", max_source_tokens=64, max_target_tokens=16
    )
    # The same tokens wherever a word stands; each common character is one.
    [alone], [within] = tokenizer.pieces(["跑步鞋"]), tokenizer.pieces(["防水跑步鞋子"])
    assert len(alone) == 4
    assert alone[1:] == within[3:6]
    for letter in "กあक я":
        assert len(tokenizer.pieces([letter])[0]) <= 2
    whole = whole_entries(tokenizer)
    assert set(alone) <= set(whole)
    assert all("\ufffd" not in tokenizer.decode([entry, entry]) for entry in whole)
    assert len(whole) < tokenizer.vocab_size
