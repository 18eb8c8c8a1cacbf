"""Which of a user's queries enter a prompt: by terms, and by an embedder's space."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tiny_models import make_static
from toy import toy_dataset

from onebar.embedding.encoder import EmbedderError, Vectors, read_card, unit, write_card
from onebar.embedding.enrich import with_history
from onebar.embedding.memo import Remembering
from onebar.embedding.relevance import NearEnough, relevance_of
from onebar.evaluation.histories import history_quality
from onebar.evidence.evidence import assemble, relevant_history, shares_a_term
from onebar.generator.checkpoint import open_checkpoint
from onebar.recommending.loading import (
    CheckpointUnusableError,
    configured_embedder,
    load_model,
    open_relevance,
)
from onebar.records import Anchor, Features, HistoryEntry, VideoText
from onebar.settings import Settings
from onebar.training.sft import SFTConfig, train_sft
from onebar.triggers import SPLITS, DatasetError, Trigger, write_dataset


class Letters:
    """One axis a letter; remembers what it was asked."""

    name = "letters"
    dim = 26

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        found = np.zeros((len(texts), 26), dtype=np.float32)
        for at, text in enumerate(texts):
            for letter in text:
                if "a" <= letter <= "z":
                    found[at, ord(letter) - 97] += 1
        return unit(found)


def past(*queries: str) -> tuple[HistoryEntry, ...]:
    """Queries with the newest first."""
    return tuple(HistoryEntry(query, float(-at)) for at, query in enumerate(queries))


class TestNearEnough:
    def test_it_keeps_what_is_near_whatever_words_are_used(self) -> None:
        relevance = NearEnough(Letters(), 0.9)
        assert relevance(["abba", "zz", "ab", "abz"], "aabb", ()) == [True, False, True, False]

    def test_terms_decide_where_the_video_has_no_vector(self) -> None:
        relevance = NearEnough(Letters(), 0.9)
        queries = ["跑鞋 女", "tent"]
        assert relevance(queries, "跑鞋", ()) == shares_a_term(queries, "跑鞋", ()) == [True, False]
        assert relevance(["tent"], "", ["tents"]) == [True]

    def test_the_newest_of_those_that_touch_the_video_enter_the_evidence(self) -> None:
        known = Features(
            text=VideoText(title="aabb"), history=past("zz", "ab", "ba", "abab", "aab")
        )
        found = assemble(known, max_history=2, relevance=NearEnough(Letters(), 0.9))
        assert found.history == ("ab", "ba")
        alone = assemble(structs.replace(known, history=past("zz", "yy")))
        assert alone == assemble(structs.replace(known, history=()))

    @given(st.lists(st.text("abyz", max_size=4), max_size=8), st.floats(-1, 1))
    def test_a_query_is_judged_by_itself(self, queries: list[str], threshold: float) -> None:
        relevance = NearEnough(Letters(), threshold)
        together = relevance(queries, "aabb", ())
        assert list(together) == [relevance([query], "aabb", ())[0] for query in queries]

    @given(st.lists(st.text("ab", max_size=2), max_size=8))
    def test_a_query_enters_once(self, queries: list[str]) -> None:
        found = relevant_history(
            past(*queries), "ab", (), limit=8, relevance=lambda q, t, a: [True] * len(q)
        )
        assert found == tuple(dict.fromkeys(queries))


def test_anchors_of_neighbours_enter_the_evidence_where_the_model_learnt_from_them() -> None:
    near = (Anchor("near", 9.0, "neighbor"), Anchor("log", 8.0, "retrieved"))
    anchors = (Anchor("own", 1.0), *near, Anchor("mine", 0.5))
    known = Features(anchors=anchors)
    assert assemble(known).anchors == ("own", "mine")
    assert assemble(known, max_anchors=1).anchors == ("own",)
    assert assemble(known, neighbors=True).anchors == ("own", "near", "log", "mine")


class TestRemembering:
    @given(
        st.lists(st.lists(st.text("abc", max_size=2), max_size=5), max_size=12), st.integers(0, 4)
    )
    def test_it_says_what_the_encoder_says(self, asked: list[list[str]], most: int) -> None:
        encoder = Letters()
        remembering = Remembering(encoder, most=most)
        for texts in asked:
            assert np.array_equal(remembering.encode(texts), Letters().encode(texts))
            assert len(remembering) <= most

    def test_what_is_known_is_not_asked_again(self) -> None:
        encoder = Letters()
        remembering = Remembering(encoder, most=2)
        for texts in (["a", "b", "a"], ["b", "a"], ["c"], ["a", "b"]):
            remembering.encode(texts)
        assert encoder.asked == ["a", "b", "c", "b"]


def test_an_embedder_says_from_where_on_a_query_touches_a_video(tmp_path: Path) -> None:
    embedder = make_static(tmp_path / "e")
    with pytest.raises(EmbedderError, match="calibrate --save"):
        relevance_of(embedder)
    card = read_card(embedder)
    assert card is not None
    write_card(embedder, structs.replace(card, history_threshold=-1.0))
    assert relevance_of(embedder)(["tent", "lipstick"], "camping tent", ()) == [True, True]
    modules = json.loads((embedder / "modules.json").read_bytes())
    (embedder / "modules.json").write_text(json.dumps([*modules, {"path": "2", "type": "x.Dense"}]))
    with pytest.raises(EmbedderError, match="no static embedder"):
        relevance_of(embedder)


def trigger(target: str, *recent: str, history: tuple[str, ...] = ()) -> Trigger:
    return Trigger(
        trigger_id=target, kind="click", ts=0.0, video_id="v", text="camping tent", target=target,
        recent=recent, history=history,
    )  # fmt: skip


def test_quality_by_what_was_then_tapped() -> None:
    triggers = [
        trigger("family tent", "tent", "lipstick"),
        trigger("camping stove", "stove", "tents"),
        trigger("tent", "lipstick"),
    ]
    found = history_quality(triggers, shares_a_term)
    assert found.precision == pytest.approx(1 / 2)
    assert found.recall == pytest.approx(1 / 2)
    assert found.f1 == pytest.approx(1 / 2)
    assert found.size == pytest.approx(2 / 3)
    assert found.shared == pytest.approx(1 / 3)
    assert history_quality([], shares_a_term).f1 == 0.0


def test_a_dataset_without_the_users_queries_is_refused() -> None:
    assert with_history(trigger("x", "tent", "stove"), shares_a_term).history == ("tent",)
    with pytest.raises(DatasetError, match="make it again"):
        with_history(trigger("x", history=("tent",)), shares_a_term)


def test_a_checkpoint_serves_with_what_chose_its_histories(tmp_path: Path) -> None:
    embedder = make_static(tmp_path / "e", history_threshold=-1.0)
    plain = toy_dataset(tmp_path / "plain", 60)
    parts = {split: plain.read(split) for split in SPLITS}
    made = write_dataset(tmp_path / "d", parts, plain.texts(), embedder=embedder)
    config = SFTConfig(
        dataset=made.path, out=tmp_path / "c", preset="tiny", steps=1, batch_size=8, threads=1,
        device="cpu", progress=False,
    )  # fmt: skip
    checkpoint = open_checkpoint(train_sft(config))
    assert checkpoint.embedder is not None
    settings = Settings(checkpoint=checkpoint.path)
    assert configured_embedder(settings) == str(checkpoint.embedder)
    named = Settings(checkpoint=checkpoint.path, embedder="other")
    assert configured_embedder(named) == "other"
    model = load_model(settings)
    assert not model.prompt_config.neighbors
    assert model.relevance(["anything at all"], "a lamp", ()) == [True]
    model.engine.close()

    card = structs.replace(plain.card, neighbors=True)
    near = write_dataset(tmp_path / "n", {"train": plain.read("train")}, plain.texts(), card=card)
    other = train_sft(structs.replace(config, dataset=near.path, out=tmp_path / "o"))
    assert open_checkpoint(other).card.prompt.neighbors
    assert open_checkpoint(other).embedder is None
    assert configured_embedder(Settings(checkpoint=other)) is None
    assert open_relevance(open_checkpoint(other)) is shares_a_term

    # Without its threshold the embedder tells nothing of histories.
    embedder_card = read_card(checkpoint.embedder)
    assert embedder_card is not None
    write_card(checkpoint.embedder, structs.replace(embedder_card, history_threshold=None))
    with pytest.raises(CheckpointUnusableError, match="calibrate"):
        open_relevance(checkpoint)
