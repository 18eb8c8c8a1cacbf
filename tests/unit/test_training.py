"""Training: what goes in, the order it goes in, and that a run goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_examples

from feature_store.records import Candidate
from onebar.checkpoint import Checkpoint, GenerationConfig, open_checkpoint
from onebar.engines import load_engine
from onebar.tokens import PAD_ID
from onebar.training.dataset import (
    Dataset,
    Example,
    InvalidExampleError,
    read_examples,
    write_examples,
)
from onebar.training.evaluate import evaluate, prompt_anchors
from onebar.training.presets import preset
from onebar.training.sft import EmptyDatasetError, SFTConfig, load_model, schedule, train_sft


@pytest.mark.parametrize("name", ["e.jsonl", "e.jsonl.gz"])
def test_examples_survive_a_file(tmp_path: Path, name: str) -> None:
    examples = [*toy_examples(20, seed=1), Example("连衣裙\n\u2028 [SEP] ", "q")]
    assert write_examples(examples, tmp_path / name) == 21
    assert list(read_examples(tmp_path / name)) == examples


@pytest.mark.parametrize("line", [b"{", b'{"prompt": "x"}', b"\xff", b'{"prompt":1,"target":""}'])
def test_a_bad_line_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "e.jsonl"
    path.write_bytes(b'{"prompt":"p","target":"t"}\n' + line + b"\n")
    with pytest.raises(InvalidExampleError, match="line 2"):
        list(read_examples(path))


def test_batches_hold_every_example_once_and_are_fixed_by_the_seed(
    toy_checkpoint: Checkpoint,
) -> None:
    tokenizer = toy_checkpoint.tokenizer()
    examples = list(toy_examples(256, seed=2))
    dataset = Dataset(examples, tokenizer)
    assert len(dataset) == 256

    def epoch(number: int, seed: int = 0) -> list[list[int]]:
        return [
            row[row != PAD_ID].tolist()
            for batch in dataset.batches(16, seed=seed, epoch=number)
            for row in batch.source
        ]

    sources = tokenizer.encode([example.prompt for example in examples])
    assert sorted(epoch(0)) == sorted(sources)
    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)
    assert epoch(0) != epoch(0, seed=1)


def test_a_batch_is_padded_as_the_loss_expects(toy_checkpoint: Checkpoint) -> None:
    tokenizer = toy_checkpoint.tokenizer()
    examples = [Example("red", "red lamp"), Example("red lamp kettle", "[REJECT]")]
    (batch,) = Dataset(examples, tokenizer).batches(2, seed=0, epoch=0)
    for source, mask, labels in zip(batch.source, batch.mask, batch.labels, strict=True):
        assert ((source == PAD_ID) == (mask == 0)).all()
        wanted = labels[labels != -100]
        assert (np.sort(np.flatnonzero(labels != -100)) == np.arange(len(wanted))).all()
        text = tokenizer.decode(source[1:].tolist())
        assert tokenizer.decode(wanted.tolist()) == {e.prompt: e.target for e in examples}[text]


@given(st.floats(0, 1), st.floats(0.01, 0.5))
def test_the_rate_climbs_then_falls(done: float, warmup: float) -> None:
    assert 0 <= schedule(done, warmup) <= 1
    assert schedule(warmup, warmup) == 1.0
    assert schedule(1.0, warmup) == pytest.approx(0, abs=1e-9)
    if done >= warmup:
        assert schedule(done, warmup) >= schedule(min(1.0, done + 0.1), warmup)


def _config(directory: Path, name: str, **changes: object) -> SFTConfig:
    options: dict[str, object] = {
        "examples": directory / "toy.jsonl",
        "out": directory / name,
        "preset": "tiny",
        "steps": 12,
        "batch_size": 8,
        "threads": 1,
        "progress": False,
    }
    return SFTConfig(**{**options, **changes})  # type: ignore[arg-type]


def test_an_interrupted_run_goes_on_and_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    write_examples(toy_examples(200, seed=4), tmp_path / "toy.jsonl")
    whole = open_checkpoint(train_sft(_config(tmp_path, "whole")))

    def interrupt(self: Dataset, size: int, *, seed: int, epoch: int) -> object:
        for number, batch in enumerate(batches(self, size, seed=seed, epoch=epoch)):
            if number == 5:
                raise KeyboardInterrupt
            yield batch

    batches = Dataset.batches
    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "batches", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_sft(_config(tmp_path, "broken"))
    assert not (tmp_path / "broken").exists()
    state = torch.load(tmp_path / ".broken.training" / "state.pt", weights_only=True)
    assert state["step"] == 5
    resumed = open_checkpoint(train_sft(_config(tmp_path, "broken")))
    assert resumed.card.training["steps"] == 12
    ours = load_file(str(resumed.need("model.safetensors")))
    for name, tensor in load_file(str(whole.need("model.safetensors"))).items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=1e-5)
    assert not (tmp_path / ".broken.training").exists()


def test_a_checkpoint_can_be_trained_on_from(toy_checkpoint: Checkpoint, tmp_path: Path) -> None:
    write_examples(toy_examples(100, seed=5), tmp_path / "toy.jsonl")
    config = _config(
        tmp_path, "more", init=toy_checkpoint.path, steps=2, learning_rate=1e-5, weights=False
    )
    more = open_checkpoint(train_sft(config))
    assert not more.has_weights
    assert more.need("tokenizer.json").read_bytes() == (
        toy_checkpoint.need("tokenizer.json").read_bytes()
    )
    assert more.card.training["loss"] < 1.0  # an untrained model's is above 4


def test_time_ends_a_run_and_still_leaves_a_checkpoint(tmp_path: Path) -> None:
    write_examples(toy_examples(100, seed=6), tmp_path / "toy.jsonl")
    checkpoint = open_checkpoint(train_sft(_config(tmp_path, "short", steps=10**9, minutes=0.01)))
    assert 0 < checkpoint.card.training["steps"] < 10**9


def test_a_log_without_clicks_is_told(tmp_path: Path) -> None:
    (tmp_path / "toy.jsonl").write_bytes(b"")
    with pytest.raises(EmptyDatasetError, match="no clicks"):
        train_sft(_config(tmp_path, "none"))


def test_presets_are_named() -> None:
    assert preset("demo").decoder_layers == 1
    with pytest.raises(ValueError, match="demo"):
        preset("huge")


def test_loaded_weights_are_the_trained_ones(toy_checkpoint: Checkpoint) -> None:
    import torch

    model = load_model(toy_checkpoint.path)
    embeddings = model.model.shared.weight
    assert model.lm_head.weight.data_ptr() == embeddings.data_ptr()
    assert model.model.decoder.embed_tokens.weight.data_ptr() == embeddings.data_ptr()
    assert not torch.isnan(embeddings).any()


class _Fixed:
    model = "fixed"

    def __init__(self, outputs: dict[str, list[str]]) -> None:
        self.outputs = outputs

    def generate(self, prompts: list[str], k: int) -> list[list[Candidate]]:
        return [
            [Candidate(text, -float(i)) for i, text in enumerate(self.outputs[prompt])]
            for prompt in prompts
        ]

    def close(self) -> None:
        pass


def test_quality_counts_what_it_says() -> None:
    engine = _Fixed(
        {
            "a [SEP]  [SEP] x | right [SEP] ": ["Right", "other"],
            "b [SEP]  [SEP]  [SEP] ": ["x", "[REJECT]", "right"],
            "c": ["[REJECT]", "right"],
            "d": ["[REJECT]"],
            "e": ["something"],
        }
    )
    targets = ["right", "right", "right", "[REJECT]", "[REJECT]"]
    pairs = zip(engine.outputs, targets, strict=True)
    quality = evaluate(engine, (Example(*pair) for pair in pairs))  # type: ignore[arg-type]
    assert (quality.clicks, quality.rejects) == (3, 2)
    assert quality.hr_1 == pytest.approx(1 / 3)
    assert quality.hr_k == pytest.approx(2 / 3)
    assert quality.mrr_k == pytest.approx((1 + 1 / 2) / 3)
    assert (quality.anchors_hr_1, quality.anchors_hr_k) == (0, pytest.approx(1 / 3))
    assert (quality.reject_precision, quality.reject_recall) == (0.5, 0.5)
    assert prompt_anchors("no fields") == []


def test_quality_of_a_trained_checkpoint(toy_checkpoint: Checkpoint) -> None:
    quality = evaluate(load_engine(toy_checkpoint), toy_examples(100, seed=77))
    assert quality.hr_1 > 0.9
    assert quality.reject_recall > 0.9
    assert GenerationConfig() == toy_checkpoint.card.generation
