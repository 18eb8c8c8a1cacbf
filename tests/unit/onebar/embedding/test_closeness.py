"""BAS@k with an embedding model made here: one axis a word."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from onebar.embedding.encoder import EmbedderError
from onebar.evaluation.closeness import embedder_closeness
from onebar.triggers import Trigger

WORDS = {"[UNK]": 0, "red": 1, "shoes": 2, "blue": 3, "hat": 4}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    tokenizer = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    axes = np.eye(len(WORDS), dtype=np.float32)
    path = str(tmp_path_factory.mktemp("embedder") / "axes")
    module = StaticEmbedding(tokenizer, embedding_weights=axes)
    SentenceTransformer(modules=[module], device="cpu").save(path)
    return path


def trigger(text: str, summary: str = "") -> Trigger:
    return Trigger(trigger_id="t", kind="click", ts=0.0, video_id="v", text=text, summary=summary)


def test_it_is_the_mean_cosine_of_trigger_and_queries(model: str) -> None:
    closeness = embedder_closeness(model)
    found = closeness(
        [trigger("red", "shoes"), trigger("red shoes"), trigger("hat")],
        [["red shoes", "blue hat"], ["red"], []],
    )
    assert found[0] == pytest.approx(0.5)
    assert found[1] == pytest.approx(math.sqrt(0.5))
    assert math.isnan(found[2])


def test_a_model_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(EmbedderError, match="empty"):
        embedder_closeness(str(tmp_path / "empty"))
