"""The embedding: its loss by hand, training, negatives, encoders, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from epochs import epoch_batches
from sentence_transformers import SentenceTransformer
from tiny_models import make_bert, make_qwen3

from onebar.embedding.encoder import (
    CARD,
    EmbedderError,
    SentenceEncoder,
    StaticEncoder,
    Vectors,
    load_encoder,
    load_sentence_transformer,
    read_card,
    unit,
)
from onebar.embedding.losses import info_nce
from onebar.embedding.negatives import hard_negatives
from onebar.embedding.relations import (
    KINDS,
    EmptyRelationsError,
    Relation,
    RelationsCorruptError,
    RelationsError,
    RelationsNotFoundError,
    open_relations,
    write_relations,
)
from onebar.embedding.train import (
    Alignment,
    EmbedConfig,
    KnownPairs,
    train_all,
    train_embedder,
)

THINGS = ("shoes", "lamp", "kettle", "phone", "dress", "连衣裙", "蓝牙耳机", "tent")
SLANG = ("kicks", "lumen", "boiler", "cell", "gown", "裙子", "耳麦", "camp")
"""What people call each thing in their queries: no word is shared with the videos."""


def relations() -> list[Relation]:
    found = []
    for number in range(400):
        thing, slang = THINGS[number % 8], SLANG[number % 8]
        text = f"clip {number} of my {thing} today"
        found.append(Relation("q2v", f"{slang} {number % 5}", text))
        found.append(Relation("v2q", text, f"best {slang}"))
    found += [Relation("q2q", f"{slang} {n}", f"best {slang}") for slang in SLANG for n in range(5)]
    return found


@pytest.fixture(scope="module")
def mined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_relations(tmp_path_factory.mktemp("mined") / "relations", relations()).path


def config(mined: Path, out: Path, **changes: object) -> EmbedConfig:
    values = {
        "relations": mined, "out": out, "dim": 16, "vocab_size": 500, "steps": 60,
        "batch_size": 64, "device": "cpu", "threads": 1, "progress": False,
    }  # fmt: skip
    return msgspec.convert({**values, **changes}, EmbedConfig)


@pytest.fixture(scope="module")
def trained(mined: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("embedders")
    return train_all(out, config(mined, out, negatives=2))


class TestLoss:
    def test_two_pairs_by_hand(self) -> None:
        """Similarities [[1, 0], [0, 1]] at temperature 1: both directions log(1 + e^-1)."""
        eye = torch.eye(2, dtype=torch.float64)
        loss = info_nce(eye, eye, torch.eye(2, dtype=torch.bool), temperature=1.0)
        assert float(loss) == pytest.approx(math.log(1 + math.exp(-1)))

    def test_a_hard_negative_counts_one_way(self) -> None:
        eye = torch.eye(2, dtype=torch.float64)
        hard = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
        loss = info_nce(eye, eye, torch.eye(2, dtype=torch.bool), hard, temperature=1.0)
        # Of the first left text the negative is as near as its partner; of the second it is not.
        first = math.log((2 * math.e + 1) / math.e)
        second = math.log((math.e + 2) / math.e)
        back = math.log((math.e + 1) / math.e)
        assert float(loss) == pytest.approx(((first + second) / 2 + back) / 2)

    def test_known_partners_are_no_negatives(self) -> None:
        vectors = torch.nn.functional.normalize(torch.randn(4, 8, dtype=torch.float64), dim=1)
        everything = torch.ones(4, 4, dtype=torch.bool)
        assert float(info_nce(vectors, vectors.flip(0), everything)) == pytest.approx(0.0)

    def test_its_gradient(self) -> None:
        torch.manual_seed(0)
        left, right, hard = (
            torch.randn(n, 4, dtype=torch.float64, requires_grad=True) for n in (3, 3, 2)
        )
        together = torch.eye(3, dtype=torch.bool)
        together[0, 2] = True
        assert torch.autograd.gradcheck(
            lambda a, b, c: info_nce(a, b, together, c, temperature=0.5), (left, right, hard)
        )


class TestTraining:
    def test_queries_find_videos_that_share_no_word_with_them(self, trained: Path) -> None:
        encoder = load_encoder(trained)
        videos = encoder.encode([f"clip of my {thing}" for thing in THINGS])
        queries = encoder.encode([f"best {slang}" for slang in SLANG])
        nearest = (queries @ videos.T).argmax(axis=1)
        assert nearest.tolist() == list(range(len(THINGS)))

    def test_both_stages_are_there_and_done_ones_are_passed_over(
        self, trained: Path, mined: Path
    ) -> None:
        stages = {name: read_card(trained.parent / name) for name in ("q2v", "all")}
        first, second = stages["q2v"], stages["all"]
        assert first is not None
        assert second is not None
        assert first.training["kinds"] == ["q2v"]
        assert second.training["kinds"] == list(KINDS)
        assert second.training["init"] == first.name != second.name
        assert (second.dim, second.base) == (16, "static")
        written = (trained / CARD).stat().st_mtime_ns
        assert train_all(trained.parent, config(mined, trained.parent, negatives=2)) == trained
        assert (trained / CARD).stat().st_mtime_ns == written

    def test_one_seed_gives_one_embedder_also_when_interrupted(
        self, mined: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = read_card(train_embedder(config(mined, tmp_path / "whole", steps=20)))
        step = Alignment.step
        calls = 0

        def interrupted(self: Alignment, *args: object) -> object:
            nonlocal calls
            calls += 1
            if calls == 12:
                raise KeyboardInterrupt
            return step(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Alignment, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_embedder(config(mined, tmp_path / "parts", steps=20))
        assert not (tmp_path / "parts").exists()
        parts = read_card(train_embedder(config(mined, tmp_path / "parts", steps=20)))
        assert whole is not None
        assert parts is not None
        assert whole.name == parts.name

    def test_a_pretrained_base_gets_the_width_that_is_asked_for(
        self, mined: Path, tmp_path: Path
    ) -> None:
        base = make_bert(tmp_path / "tiny-bert")
        out = train_embedder(
            config(mined, tmp_path / "out", base=base, steps=2, batch_size=8, kinds=["q2q"])
        )
        encoder = load_encoder(out)
        assert isinstance(encoder, SentenceEncoder)
        assert encoder.dim == 16
        found = encoder.encode(["best kicks", " ", "best lumen"])
        assert np.linalg.norm(found, axis=1).tolist() == pytest.approx([1.0, 0.0, 1.0])
        card = read_card(out)
        assert card is not None
        assert card.base == "tiny-bert"
        again = train_embedder(
            config(mined, tmp_path / "2", init=str(out), steps=2, batch_size=8, kinds=["q2q"])
        )
        assert load_encoder(again).dim == 16

    def test_a_base_like_qwen3_embedding(self, mined: Path, tmp_path: Path) -> None:
        base = make_qwen3(tmp_path / "qwen3")
        settings = {"base": base, "steps": 2, "batch_size": 8, "kinds": ["q2q"], "dim": 128}
        encoder = load_encoder(train_embedder(config(mined, tmp_path / "out", **settings)))
        assert isinstance(encoder, SentenceEncoder)
        assert encoder.dim == 128
        texts = ["best kicks", " ", "a text that is longer than the others are"]
        together = encoder.encode(texts)
        assert together.dtype == np.float32
        assert np.linalg.norm(together, axis=1).tolist() == pytest.approx([1.0, 0.0, 1.0])
        alone = np.vstack([encoder.encode([text]) for text in texts])
        assert np.allclose(together, alone, atol=1e-5)
        before = SentenceEncoder(load_sentence_transformer(base), name="")
        trained = load_sentence_transformer(str(tmp_path / "out"))
        weights = dict(trained.named_parameters())
        moved = [
            name for name, old in before._model.named_parameters()
            if not torch.equal(old, weights[name].to(old.dtype))
        ]  # fmt: skip
        assert len(moved) > 10

    def test_a_log_without_engagements_is_enough(self, tmp_path: Path) -> None:
        some = [relation for relation in relations() if relation.kind == "v2q"]
        only = write_relations(tmp_path / "r", some).path
        out = train_all(tmp_path / "out", config(only, tmp_path / "out", steps=5))
        assert not (tmp_path / "out" / "q2v").exists()
        card = read_card(out)
        assert card is not None
        assert card.training["init"] is None

    def test_a_kind_that_is_missing_is_named(self, tmp_path: Path) -> None:
        only = write_relations(tmp_path / "r", [Relation("q2q", "a", "b")]).path
        with pytest.raises(EmptyRelationsError, match="q2v"):
            train_embedder(config(only, tmp_path / "out", kinds=["q2v"]))
        assert not (tmp_path / "out").exists()

    def test_what_is_no_embedder_is_not_replaced(self, mined: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("mine")
        with pytest.raises(EmbedderError, match="no embedder"):
            train_embedder(config(mined, tmp_path / "out"))
        assert (tmp_path / "out" / "thesis.tex").read_text() == "mine"

    def test_batches_are_of_one_kind_and_hold_everything_once(self, mined: Path) -> None:
        stage = Alignment(config(mined, mined), relations(), None)
        batches = list(epoch_batches(stage.examples, 32, seed=1, epoch=0))
        assert all(len({r.kind for r in batch.relations}) == 1 for batch in batches)
        seen = [relation for batch in batches for relation in batch.relations]
        assert sorted(seen, key=repr) == sorted(relations(), key=repr)


class Axes:
    """An encoder that knows each text's vector."""

    name = "axes"
    dim = 2

    def __init__(self, vectors: dict[str, tuple[float, float]]) -> None:
        self.vectors = vectors

    def encode(self, texts: list[str]) -> Vectors:
        return unit(np.array([self.vectors[text] for text in texts], dtype=np.float32))


def test_hard_negatives_are_near_and_never_a_known_partner() -> None:
    encoder = Axes(
        {
            "q": (1, 0), "partner": (1, 0.5), "too near": (1, 0.1), "near": (1, 0.7),
            "far": (0, 1), "r": (0, 1),
        }
    )  # fmt: skip
    found = hard_negatives(
        [
            Relation("q2v", "q", "partner"),
            *(Relation("q2v", "r", text) for text in ("far", "near", "too near")),
        ],
        encoder,
        2,
    )
    assert found["q"] == ["near", "far"]  # "too near" may be a partner nobody has logged
    assert found["r"] == ["partner"]


def test_known_pairs_are_those_of_the_relations() -> None:
    known = KnownPairs(
        [Relation("q2v", "a", "x"), Relation("v2q", "x", "a"), Relation("q2v", "b", "y")]
    )
    assert known.among(["a", "b", "x"], ["x", "y", "a"]).tolist() == [
        [True, False, False], [False, True, False], [False, False, True],
    ]  # fmt: skip


class TestEncoder:
    def test_without_torch_it_gives_what_sentence_transformers_does(self, trained: Path) -> None:
        texts = ["clip of my lamp", "best 裙子 ever", "", "emoji 🙂"]
        encoder = load_encoder(trained)
        assert isinstance(encoder, StaticEncoder)
        theirs = SentenceTransformer(str(trained), device="cpu").encode(
            ["clip of my lamp", "best 裙子 ever", "emoji 🙂"], normalize_embeddings=True
        )
        ours = encoder.encode(texts)
        assert np.allclose(ours[[0, 1, 3]], theirs, atol=1e-5)
        assert not ours[2].any()
        assert encoder.encode([]).shape == (0, 16)

    @pytest.mark.parametrize("broken", ["model.safetensors", "tokenizer.json"])
    def test_a_file_cut_short_is_named(self, trained: Path, tmp_path: Path, broken: str) -> None:
        import shutil

        copy = tmp_path / "copy"
        shutil.copytree(trained, copy)
        [path] = copy.rglob(broken)
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(EmbedderError, match="copy"):
            load_encoder(copy)

    @pytest.mark.parametrize("name", ["/nowhere/embedder", "runs/demo/embedder", "./x", "a b"])
    def test_a_directory_that_is_not_there_is_asked_of_nobody(self, name: str) -> None:
        with pytest.raises(EmbedderError, match="no directory"):
            load_encoder(name)


class TestRelations:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        some = [Relation("q2v", "a", "b", 3), Relation("q2q", "a", "c")]
        opened = write_relations(tmp_path / "r", some, until=5.0)
        assert list(open_relations(tmp_path / "r").read()) == some
        assert list(opened.read(["q2q"])) == some[1:]
        assert opened.card.counts == {"q2v": 1, "q2q": 1}
        assert opened.card.until == 5.0

    def test_none_at_all_writes_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(EmptyRelationsError):
            write_relations(tmp_path / "r", [])
        assert not (tmp_path / "r").exists()

    def test_what_is_broken_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(RelationsNotFoundError, match="onebar embed relations"):
            open_relations(tmp_path)
        path = write_relations(tmp_path / "r", [Relation("q2q", "a", "c")]).path
        file = path / "relations.parquet"
        file.write_bytes(file.read_bytes()[:-20])
        with pytest.raises(RelationsCorruptError, match="mine it again"):
            list(open_relations(path).read())
        file.unlink()
        with pytest.raises(RelationsCorruptError, match="missing"):
            open_relations(path)

    def test_another_directory_is_not_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("x")
        with pytest.raises(RelationsError, match="choose another"):
            write_relations(tmp_path, [Relation("q2q", "a", "c")])
