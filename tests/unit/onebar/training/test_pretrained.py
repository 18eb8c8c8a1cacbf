"""A BART from elsewhere becomes one of ours: the right rows, the same outputs in every engine, and
a named error where it can't be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from bart_source import (
    CHINESE,
    bart,
    byte_level_tokenizer,
    change_config,
    wordpiece_vocabulary,
    write_bart,
)
from toy import toy_prompts

from onebar.evidence.prompt import PromptConfig
from onebar.evidence.text import REJECT, SEP
from onebar.generator.checkpoint import (
    WEIGHTS,
    Checkpoint,
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    GenerationConfig,
    open_checkpoint,
    seal,
)
from onebar.generator.load import load_engine
from onebar.process.files import staging
from onebar.training.models.convert import import_model
from onebar.training.models.pretrained import NEVER, load_pretrained, source_name
from onebar.training.models.vocabulary import adopt, read_tokenizer
from onebar.training.presets import learning_rate, preset

BEAMS = 8
SHORT = GenerationConfig(max_target_tokens=6)
PROMPTS = ["", " [SEP]  [SEP]  [SEP] ", *toy_prompts(10, seed=3)]


@pytest.fixture(scope="module")
def tokenizer() -> dict[str, Any]:
    return byte_level_tokenizer()


@pytest.fixture(scope="module")
def entries(tokenizer: dict[str, Any]) -> int:
    from tokenizers import Tokenizer

    return int(Tokenizer.from_str(json.dumps(tokenizer)).get_vocab_size())


@pytest.fixture(scope="module")
def source(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: dict[str, Any], entries: int
) -> Path:
    """A directory as facebook/bart-base's; `copy` is for tests that change it."""
    return write_bart(tmp_path_factory.mktemp("bart") / "bart-mini", bart(entries), tokenizer)


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "copy"))


def texts_and_scores(checkpoint: Checkpoint, engine: Any) -> tuple[list[str], list[float]]:
    generated = load_engine(checkpoint, engine=engine, beam_size=BEAMS).generate(PROMPTS, BEAMS)
    flat = [candidate for candidates in generated for candidate in candidates]
    return [candidate.text for candidate in flat], [candidate.score for candidate in flat]


# Engines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"scale_embedding": True, "activation_function": "gelu_new", "init_std": 0.05},
        {"activation_function": "relu", "decoder_start_token_id": 0, "decoder_layers": 1},
    ],
    ids=["as bart-base", "scaled", "relu"],
)
def test_all_engines_and_transformers_agree(
    changes: dict[str, Any],
    tokenizer: dict[str, Any],
    entries: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With these the search is one that transformers has.
    monkeypatch.setattr("onebar.generator.engine.PATIENCE", 1.0)
    generation = msgspec.structs.replace(SHORT, length_penalty=1.0)
    write_bart(tmp_path / "source", bart(entries, **changes), tokenizer)
    checkpoint = import_model(
        tmp_path / "source", tmp_path / "out", quantization="float32", generation=generation
    )
    prompts = checkpoint.tokenizer()
    model, _ = load_pretrained(tmp_path / "out", tmp_path)
    texts: list[str] = []
    scores: list[float] = []
    for ids in prompts.encode(PROMPTS):
        found = model.generate(
            input_ids=torch.tensor([ids]),
            num_beams=BEAMS,
            num_return_sequences=BEAMS,
            early_stopping=True,
            length_penalty=1.0,
            max_new_tokens=SHORT.max_target_tokens,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        best: dict[str, float] = {}
        for row, score in zip(
            found.sequences.tolist(), found.sequences_scores.tolist(), strict=True
        ):
            best.setdefault(prompts.decode(row[1:]), score)
        texts += best
        scores += best.values()
    for engine in ("torch", "ctranslate2"):
        their_texts, their_scores = texts_and_scores(checkpoint, engine)
        assert their_texts == texts
        assert their_scores == pytest.approx(scores, abs=1e-4)


def test_int8_agrees_with_float(tokenizer: dict[str, Any], entries: int, tmp_path: Path) -> None:
    model = bart(entries, init_std=0.1)
    model.final_logits_bias[0, 2] = 5.0
    write_bart(tmp_path / "source", model, tokenizer)
    checkpoint = import_model(tmp_path / "source", tmp_path / "out", generation=SHORT)
    fast_texts, fast = texts_and_scores(checkpoint, "ctranslate2")
    exact_texts, exact = texts_and_scores(checkpoint, "torch")
    assert fast_texts[::BEAMS] == exact_texts[::BEAMS]
    assert fast[::BEAMS] == pytest.approx(exact[::BEAMS], abs=0.2)
    # And it is int8: a quarter of float32, less biases and positions.
    sizes = {name: fact.size for name, fact in checkpoint.card.files.items()}
    assert sizes["ct2/model.bin"] < 0.4 * sizes["model.safetensors"]


# Rows -----------------------------------------------------------------------------------------


def test_new_tokens_get_rows_and_the_others_keep_theirs(source: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import BartForConditionalGeneration

    before = BartForConditionalGeneration.from_pretrained(source).eval()
    model, path = load_pretrained(source, tmp_path)
    prompts = GenerationConfig().tokenizer(path)
    kept = before.config.vocab_size
    assert (prompts.sep_id, prompts.reject_id) == (kept, kept + 1)
    assert (prompts.bos_id, prompts.pad_id, prompts.eos_id, prompts.unk_id) == (0, 1, 2, 3)
    assert prompts.mask_id == kept - 1
    assert prompts.vocab_size == model.config.vocab_size == kept + 2

    rows = model.get_input_embeddings().weight
    assert torch.equal(rows[:kept], before.get_input_embeddings().weight)
    assert torch.equal(rows[prompts.sep_id], rows[prompts.eos_id])
    opened = Tokenizer.from_file(str(source / "tokenizer.json"))
    pieces = opened.encode(" [REJECT]", add_special_tokens=False).ids
    assert len(pieces) > 1
    assert torch.allclose(rows[prompts.reject_id], rows[pieces].mean(0))
    assert rows.shape[0] == kept + 2
    assert model.lm_head.weight is rows
    assert model.final_logits_bias.shape == (1, kept + 2)
    assert model.config.forced_eos_token_id is None
    assert getattr(model.config, "forced_bos_token_id", None) is None

    source_ids = torch.tensor(prompts.encode(["red shoes today"]))
    target_ids = torch.tensor([[2, 5, 9, 20]])
    with torch.inference_mode():
        theirs = before(input_ids=source_ids, decoder_input_ids=target_ids).logits
        ours = model(input_ids=source_ids, decoder_input_ids=target_ids).logits
    torch.testing.assert_close(ours[..., :kept], theirs, atol=1e-5, rtol=0)
    # A separator would be as likely as the end it copies; its bias keeps it from being written.
    assert float(torch.softmax(ours, -1)[..., prompts.sep_id].max()) < 1e-30


def test_padded_embeddings_are_cut(copy: Path, tokenizer: dict[str, Any], entries: int) -> None:
    shutil.rmtree(copy)
    write_bart(copy, bart(entries + 61), tokenizer)
    checkpoint = import_model(copy, copy.parent / "out", generation=SHORT)
    assert checkpoint.tokenizer().vocab_size == entries + 2
    assert texts_and_scores(checkpoint, "ctranslate2")[0]


def test_a_mask_without_a_row_gets_one(copy: Path, tokenizer: dict[str, Any], entries: int) -> None:
    """facebook/bart-large-cnn."""
    shutil.rmtree(copy)
    write_bart(copy, bart(entries - 1), tokenizer)
    model, path = load_pretrained(copy, copy.parent)
    prompts = GenerationConfig().tokenizer(path)
    assert {prompts.mask_id, prompts.sep_id, prompts.reject_id} == {
        entries - 1,
        entries,
        entries + 1,
    }
    rows = model.get_input_embeddings().weight
    torch.testing.assert_close(rows[prompts.mask_id], rows[: entries - 1].mean(0))


def test_holes_in_a_vocabulary_are_named(tokenizer: dict[str, Any], entries: int) -> None:
    from tokenizers import Tokenizer

    changed = json.loads(json.dumps(tokenizer))
    at = changed["model"]["vocab"].pop("Ġvideo")
    changed["model"]["merges"] = [m for m in changed["model"]["merges"] if "".join(m) != "Ġvideo"]
    vocabulary = adopt(changed, entries)
    opened = Tokenizer.from_str(json.dumps(vocabulary.tokenizer))
    assert opened.id_to_token(at) == f"<unused-{at}>"
    assert opened.get_vocab_size() == vocabulary.size == entries + 2


def test_separators_that_a_model_has_keep_their_rows(copy: Path, entries: int) -> None:
    first, path = load_pretrained(copy, copy.parent)
    trained = copy.parent / "again"
    with torch.no_grad():
        first.get_input_embeddings().weight[-2:].add_(1.0)
    write_bart(trained, first, json.loads(path.read_text()))
    second, _ = load_pretrained(trained, copy.parent)
    assert torch.equal(second.get_input_embeddings().weight, first.get_input_embeddings().weight)
    assert torch.equal(second.final_logits_bias, first.final_logits_bias)


# Files ----------------------------------------------------------------------------------------


def test_a_prefix_space_or_a_post_processor_of_its_own_changes_nothing(
    source: Path, copy: Path, tmp_path: Path
) -> None:
    (copy / "tokenizer.json").write_text(json.dumps(byte_level_tokenizer(add_prefix_space=True)))
    (tmp_path / "a").mkdir()
    plain = GenerationConfig().tokenizer(load_pretrained(source, tmp_path)[1])
    other = GenerationConfig().tokenizer(load_pretrained(copy, tmp_path / "a")[1])
    texts = [*PROMPTS, "red", " red", "café 连衣裙", "x " * 300]
    assert plain.encode(texts) == other.encode(texts)
    assert plain.encode_targets([*texts, REJECT]) == other.encode_targets([*texts, REJECT])
    (first,) = plain.encode(["red"])
    assert plain.tokens(first) == ["<s>", "Ġred", "</s>"]
    assert plain.encode_targets([REJECT])[0] == [plain.reject_id, plain.eos_id]


def test_vocabulary_and_merges_do_for_a_tokenizer(copy: Path, tmp_path: Path) -> None:
    _, path = load_pretrained(copy, tmp_path)
    expected = GenerationConfig().tokenizer(path).encode(PROMPTS)
    raw = json.loads((copy / "tokenizer.json").read_text())
    special = {added["content"]: added["id"] for added in raw["added_tokens"]}
    (copy / "vocab.json").write_text(json.dumps(raw["model"]["vocab"] | special))
    merges = "\n".join(" ".join(pair) for pair in raw["model"]["merges"])
    (copy / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (copy / "tokenizer.json").unlink()
    _, path = load_pretrained(copy, tmp_path)
    assert GenerationConfig().tokenizer(path).encode(PROMPTS) == expected


def test_weights_may_be_pickled_and_without_a_head(copy: Path, tmp_path: Path) -> None:
    """facebook/bart-base's: saved of a BartModel, so no bias of the outputs, no prefix."""
    from safetensors.torch import load_file

    expected, _ = load_pretrained(copy, tmp_path)
    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    bare = {
        name.removeprefix("model."): tensor
        for name, tensor in weights.items()
        if name.startswith("model.")
    }
    torch.save(bare, copy / "pytorch_model.bin")
    model, _ = load_pretrained(copy, tmp_path)
    assert model.dtype == torch.float32
    for (name, a), b in zip(expected.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert not model.final_logits_bias[0, :-2].any()


def test_half_precision_is_widened(copy: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    save_file({k: v.half() for k, v in weights.items()}, copy / "model.safetensors")
    change_config(copy, dtype="float16")
    model, _ = load_pretrained(copy, tmp_path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_checkpoint_of_ours_is_a_start_as_it_is(source: Path, tmp_path: Path) -> None:
    checkpoint = import_model(source, tmp_path / "out", name="mini", generation=SHORT)
    assert checkpoint.name.startswith("mini-")
    assert checkpoint.card.training["stage"] == "import"
    first, _ = load_pretrained(source, tmp_path)
    second, path = load_pretrained(str(tmp_path / "out"), tmp_path)
    assert path.read_bytes() == checkpoint.need("tokenizer.json").read_bytes()
    for (name, a), (_, b) in zip(
        first.state_dict().items(), second.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


# WordPiece ------------------------------------------------------------------------------------


@pytest.fixture
def chinese(tmp_path: Path) -> Path:
    """A directory as fnlp/bart-base-chinese's: `vocab.txt`, [CLS] and [SEP]."""
    vocabulary = wordpiece_vocabulary()
    cls, sep = vocabulary.index("[CLS]"), vocabulary.index("[SEP]")
    model = bart(
        len(vocabulary),
        bos_token_id=cls,
        eos_token_id=sep,
        pad_token_id=0,
        decoder_start_token_id=sep,
        forced_eos_token_id=sep,
    )
    path = write_bart(tmp_path / "chinese", model)
    (path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    return path


def test_wordpiece(chinese: Path, tmp_path: Path) -> None:
    checkpoint = import_model(chinese, tmp_path / "out", quantization="float32", generation=SHORT)
    prompts = checkpoint.tokenizer()
    vocabulary = wordpiece_vocabulary()
    assert prompts.bos_id == vocabulary.index("[CLS]")
    assert prompts.eos_id == vocabulary.index("[SEP]")
    assert prompts.sep_id == len(vocabulary)
    assert prompts.vocab_size == len(vocabulary) + 2

    (ids,) = prompts.encode([f"RED shoes {SEP} {CHINESE} {SEP}  {SEP} "])
    tokens = prompts.tokens(ids)
    assert tokens[:5] == ["<s>", "red", "shoes", SEP, "连"]
    assert (tokens.count(SEP), tokens[-1]) == (3, "</s>")
    for text in ("连衣裙", "red dress", "red连衣裙", "手机壳, red", REJECT):
        assert prompts.decode(prompts.encode_targets([text])[0]) == text
    # What it can't keep: a space beside a Chinese character.
    assert prompts.decode(prompts.encode_targets(["红色 手机"])[0]) == "红色手机"
    # Its own names are mere text now, and so is the `<s>` that was an ordinary entry.
    assert prompts.bos_id not in prompts.encode(["[CLS]"])[0][1:]

    texts, scores = texts_and_scores(checkpoint, "torch")
    assert texts_and_scores(checkpoint, "ctranslate2")[0] == texts
    assert texts_and_scores(checkpoint, "ctranslate2")[1] == pytest.approx(scores, abs=1e-4)


def test_wordpiece_keeps_case_where_its_config_says_so(chinese: Path) -> None:
    (chinese / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert read_tokenizer(chinese)["normalizer"]["lowercase"] is False


# What can't be --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"model_type": "mbart"}, CheckpointMismatchError, "mbart"),
        ({"model_type": "t5"}, CheckpointMismatchError, "t5"),
        ({"model_type": None}, CheckpointMismatchError, "BART"),
        ({"normalize_before": True}, CheckpointMismatchError, "normalize_before"),
        ({"activation_function": "swish"}, CheckpointMismatchError, "swish"),
        ({"tie_word_embeddings": False}, CheckpointMismatchError, "tie_word_embeddings"),
        ({"vocab_size": None}, CheckpointMismatchError, "vocab_size"),
        ({"vocab_size": 300}, CheckpointMismatchError, "does not match the model"),
        ({"vocab_size": 1000}, CheckpointMismatchError, "another shape"),
        ({"d_model": 32}, CheckpointMismatchError, "another shape"),
        ({"encoder_layers": 3}, CheckpointMismatchError, "missing"),
        ({"eos_token_id": 3}, CheckpointMismatchError, "eos_token_id"),
        ({"pad_token_id": 0}, CheckpointMismatchError, "pad_token_id"),
        ({"decoder_start_token_id": 10**6}, CheckpointMismatchError, "decoder_start_token_id"),
        ({"max_position_embeddings": "many"}, CheckpointMismatchError, "max_position"),
    ],
    ids=str,
)
def test_a_config_that_can_not_be_is_told(
    copy: Path, changes: dict[str, Any], error: type[CheckpointError], said: str
) -> None:
    change_config(copy, **changes)
    with pytest.raises(error, match=said):
        import_model(copy, copy.parent / "out")
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def rename(tokenizer: dict[str, Any], old: str) -> dict[str, Any]:
    text = json.dumps(tokenizer)
    changed: dict[str, Any] = json.loads(text.replace(json.dumps(old), '"<other>"'))
    return changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: rename(raw, "</s>"), "lacks special tokens"),
        (lambda raw: rename(raw, "<pad>"), "lacks special tokens"),
        (lambda raw: {**raw, "pre_tokenizer": {"type": "Whitespace"}}, "not byte-level"),
        (lambda raw: {**raw, "model": {"type": "Unigram", "vocab": [["a", 0.0]]}}, "neither"),
        (lambda raw: {}, "neither"),
        (lambda raw: {**raw, "normalizer": {"type": "NoSuch"}}, "can't be used"),
    ],
)
def test_a_tokenizer_that_can_not_be_is_told(copy: Path, change: Any, said: str) -> None:
    path = copy / "tokenizer.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CheckpointMismatchError, match=said):
        load_pretrained(copy, copy.parent)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_missing_and_broken_files_are_told(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointCorruptError):
        load_pretrained(copy, copy.parent)
    (copy / name).unlink()
    with pytest.raises((CheckpointMismatchError, CheckpointNotFoundError)):
        load_pretrained(copy, copy.parent)


def test_a_broken_pickle_or_vocabulary_is_told(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"no pickle")
    with pytest.raises(CheckpointCorruptError, match="weights"):
        load_pretrained(copy, copy.parent)
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.json").write_text("{}")
    (copy / "merges.txt").write_text("one\n")
    with pytest.raises(CheckpointCorruptError, match="tokenizer"):
        load_pretrained(copy, copy.parent)


def test_no_such_source(tmp_path: Path) -> None:
    for name in (tmp_path / "nothing", "./nothing", "a/b/c", ""):
        with pytest.raises(CheckpointError):
            load_pretrained(name, tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointMismatchError, match="is a file"):
        load_pretrained(tmp_path / "file", tmp_path)


def test_lengths_that_a_model_has_no_positions_for_are_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointMismatchError, match="positions"):
        import_model(source, tmp_path / "out", generation=GenerationConfig(max_source_tokens=129))


def test_heads_that_differ_are_told(
    tokenizer: dict[str, Any], entries: int, tmp_path: Path
) -> None:
    """CTranslate2's converter would take the encoder's for both, silently."""
    write_bart(tmp_path / "source", bart(entries, decoder_attention_heads=2), tokenizer)
    with pytest.raises(CheckpointMismatchError, match="heads"):
        import_model(tmp_path / "source", tmp_path / "out")


def test_a_checkpoint_with_the_tokenizer_of_another_is_refused(
    source: Path, tmp_path: Path
) -> None:
    good = import_model(source, tmp_path / "good")
    with staging(tmp_path / "bad") as staged:
        shutil.copytree(good.path, staged, dirs_exist_ok=True)
        raw = json.loads((staged / "tokenizer.json").read_text())
        raw["added_tokens"].append({**raw["added_tokens"][-1], "id": 9999, "content": "<extra>"})
        (staged / "tokenizer.json").write_text(json.dumps(raw))
        bad = seal(
            staged, tmp_path / "bad", preset="x", prompt=PromptConfig(),
            generation=GenerationConfig(), training={},
        )  # fmt: skip
    for engine in ("torch", "ctranslate2"):
        with pytest.raises(CheckpointMismatchError, match="don't belong together"):
            load_engine(bad, engine=engine)  # type: ignore[arg-type]
    with pytest.raises(CheckpointMismatchError, match="don't belong together"):
        load_pretrained(tmp_path / "bad", tmp_path)


def test_names() -> None:
    assert source_name("facebook/bart-base") == "bart-base"
    assert source_name("/models/Mein BART_v2/") == "mein-bart-v2"
    assert learning_rate("demo") == preset("demo").learning_rate
    assert learning_rate("bart-base") < 1e-4


# The command, and training on -----------------------------------------------------------------


def test_the_command(source: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from onebar.cli.main import app

    out = tmp_path / "out"
    command = ["train", "import", str(source), "--out", str(out), "--json", "--no-weights"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads(done.stdout.splitlines()[-1])
    checkpoint = open_checkpoint(out)
    assert told["name"] == checkpoint.name
    assert checkpoint.name.startswith("bart-mini-")
    assert checkpoint.optional(WEIGHTS) is None
    with pytest.raises(CheckpointMismatchError, match="already"):
        import_model(out, tmp_path / "again")
    # What serves is enough to go on from: its separator is still never given.
    (found, _), (wanted, _) = (load_pretrained(each, tmp_path) for each in (out, source))
    [separator] = checkpoint.tokenizer().ids([SEP])
    assert found.final_logits_bias[0, separator] == NEVER
    assert torch.equal(found.final_logits_bias, wanted.final_logits_bias)


def test_training_goes_on_from_it(source: Path, tmp_path: Path) -> None:
    from toy import toy_dataset

    from onebar.training.sft import SFTConfig, train_sft

    config = SFTConfig(
        dataset=toy_dataset(tmp_path / "dataset", 40).path,
        out=tmp_path / "out",
        init=str(source),
        steps=2,
        batch_size=4,
        threads=1,
        device="cpu",
        progress=False,
    )
    checkpoint = open_checkpoint(train_sft(config))
    assert checkpoint.name.startswith("bart-mini-")
    before, _ = load_pretrained(source, tmp_path)
    after, _ = load_pretrained(tmp_path / "out", tmp_path)
    rows = (model.get_input_embeddings().weight.detach() for model in (before, after))
    assert 0 < float(next(rows).sub(next(rows)).abs().max()) < 1e-3
    assert torch.equal(after.final_logits_bias, before.final_logits_bias)
    [candidates] = load_engine(checkpoint, engine="torch").generate(PROMPTS[2:3], BEAMS)
    assert len(candidates) == BEAMS
