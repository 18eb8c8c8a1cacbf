"""The floor, and the words, that a checkpoint brings."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy import toy_dataset

from onebar.generator.checkpoint import WORDS, Checkpoint, open_checkpoint
from onebar.generator.load import load_engine
from onebar.training.models.export import export_again
from onebar.training.models.floor import floor, per_token, right_scores


def test_the_floor_gives_up_a_share_of_what_is_right() -> None:
    assert floor([-float(at) for at in range(100)], 0.02) == -97.0
    assert floor([-1.0], 0.02) == -1.0
    assert floor([]) is None


def test_scores_are_those_of_the_clicked_queries_a_token(
    toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    dataset = toy_dataset(tmp_path / "dataset", 40)
    engine, tokenizer = load_engine(toy_checkpoint), toy_checkpoint.tokenizer()
    found = right_scores(engine, tokenizer, dataset.read("train"), toy_checkpoint.card.prompt)
    engine.close()
    assert found
    assert all(score <= 0 for score in found)
    tokens = len(tokenizer.encode_targets(["pink lamp"])[0])
    assert per_token(-6.0, "pink lamp", tokenizer) == pytest.approx(-6.0 / tokens)


def test_words_and_floor_are_kept_and_change_the_name(
    toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    words = {"lamp": 3, "鞋": 5, "shoe": 3}
    made = export_again(toy_checkpoint.path, tmp_path / "made", floor=-1.5, words=words)
    assert list(made.words()) == ["鞋", "lamp", "shoe"]
    assert made.words() == words
    assert made.card.generation.floor == -1.5
    assert made.name != toy_checkpoint.name
    again = export_again(made.path, tmp_path / "again", weights=False)
    assert again.words() == words
    assert again.card.generation.floor == -1.5
    assert WORDS not in toy_checkpoint.card.files
    assert open_checkpoint(toy_checkpoint.path).words() == {}
