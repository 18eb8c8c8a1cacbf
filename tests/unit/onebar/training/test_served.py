"""A checkpoint that has only what serves can be trained on: its weights are multiplied out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from toy import toy_dataset, toy_prompts

from onebar.generator.checkpoint import (
    MODEL,
    OUTPUTS,
    SHIPPED,
    WEIGHTS,
    Checkpoint,
    CheckpointCorruptError,
    CheckpointMismatchError,
    directory_of,
    open_checkpoint,
)
from onebar.generator.load import load_engine
from onebar.training.models.export import convert, export_again, round_weights
from onebar.training.models.pretrained import load_pretrained
from onebar.training.models.served import served_model
from onebar.training.sft import SFTConfig, train_sft


@pytest.fixture(scope="module")
def served(toy_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return export_again(
        toy_checkpoint.path, tmp_path_factory.mktemp("served") / "toy", weights=False
    )


def copy_of(checkpoint: Checkpoint, to: Path) -> Checkpoint:
    """One whose files may be changed, opened before they are."""
    return Checkpoint(Path(shutil.copytree(checkpoint.path, to)), checkpoint.card)


def test_it_is_the_model_whose_weights_were_rounded(
    toy_checkpoint: Checkpoint, served: Checkpoint, tmp_path: Path
) -> None:
    wanted, _ = load_pretrained(toy_checkpoint.path, tmp_path)
    round_weights(wanted)
    found = served_model(served).state_dict()
    for name, tensor in wanted.state_dict().items():
        # Two rows of the positions stand before the first and are never read.
        first = 2 if name.endswith("embed_positions.weight") else 0
        torch.testing.assert_close(found[name][first:], tensor[first:], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("quantization", ["int8", "int16", "float16", "bfloat16", "float32"])
def test_however_they_are_kept(
    toy_checkpoint: Checkpoint, served: Checkpoint, tmp_path: Path, quantization: str
) -> None:
    wanted, tokenizer = load_pretrained(toy_checkpoint.path, tmp_path)
    with torch.no_grad():
        wanted.final_logits_bias[0, 3] = -1.5
    changed = copy_of(served, tmp_path / "copy")
    shutil.rmtree((changed.path / MODEL).parent)
    convert(wanted, tokenizer, (changed.path / MODEL).parent, quantization=quantization)
    card = changed.card
    files = {name: fact for name, fact in card.files.items() if name != OUTPUTS}
    changed = Checkpoint(changed.path, type(card)(**{**_fields(card), "files": files}))
    found = served_model(changed).state_dict()
    for name, tensor in wanted.state_dict().items():
        first = 2 if name.endswith("embed_positions.weight") else 0
        near = 1e-6 if quantization == "float32" else 0.02 * float(tensor.abs().max()) + 1e-6
        torch.testing.assert_close(found[name][first:], tensor[first:], rtol=0, atol=near)


def _fields(card: object) -> dict[str, object]:
    return {name: getattr(card, name) for name in type(card).__struct_fields__}  # type: ignore[attr-defined]


def test_what_ships_can_be_gone_on_from(tmp_path: Path) -> None:
    """By its name, and what is made of the weights answers as it does."""
    shipped = open_checkpoint("shipped")
    assert (shipped.path, shipped.optional(WEIGHTS)) == (SHIPPED, None)
    tokens = json.loads(shipped.need(OUTPUTS).read_bytes())
    outputs = sorted(shipped.tokenizer().ids(tokens))
    made = export_again(SHIPPED, tmp_path / "made", outputs=outputs, weights=False)
    prompts = [*toy_prompts(6, seed=5), "waterproof hiking boots [SEP]  [SEP]  [SEP] "]
    answers = [
        load_engine(each, engine="ctranslate2", beam_size=4).generate(prompts, 4)
        for each in (shipped, made)
    ]
    assert [[c.text for c in each] for each in answers[0]] == [
        [c.text for c in each] for each in answers[1]
    ]


def test_a_directory_of_that_name_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert directory_of("shipped") == directory_of(None) == SHIPPED
    (tmp_path / "shipped").mkdir()
    assert directory_of("shipped") == Path("shipped")


def test_training_goes_on_from_it(served: Checkpoint, tmp_path: Path) -> None:
    dataset = toy_dataset(tmp_path / "dataset", 200)
    made = open_checkpoint(
        train_sft(
            SFTConfig(
                dataset=dataset.path, out=tmp_path / "out", init=str(served.path), steps=2,
                batch_size=8, threads=1, device="cpu", progress=False, validation_batches=2,
            )
        )
    )  # fmt: skip
    assert made.card.training["parent"] == served.name
    assert made.card.training["validation"]["before"] < 1.0
    assert made.card.prompt == served.card.prompt


def test_damaged_weights_are_told(served: Checkpoint, tmp_path: Path) -> None:
    damaged = copy_of(served, tmp_path / "copy")
    whole = (damaged.path / MODEL).read_bytes()
    (damaged.path / MODEL).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointCorruptError, match="copy the checkpoint again"):
        served_model(damaged)
    (damaged.path / MODEL).write_bytes(b"\x07" + whole[1:])
    with pytest.raises(CheckpointMismatchError, match="layout 7"):
        served_model(damaged)
