"""A checkpoint knows what it is, and says what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from onebar.evidence.prompt import PromptConfig
from onebar.evidence.tokens import trim
from onebar.generator.checkpoint import (
    CARD,
    WEIGHTS,
    Checkpoint,
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    GenerationConfig,
    annotate,
    open_checkpoint,
    seal,
)
from onebar.process.files import staging


@pytest.fixture
def copy(toy_checkpoint: Checkpoint, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_checkpoint.path, tmp_path / "copy"))


def test_it_opens_and_names_itself(toy_checkpoint: Checkpoint, copy: Path) -> None:
    assert open_checkpoint(copy).name == toy_checkpoint.name
    assert toy_checkpoint.name.startswith("tiny-")
    assert toy_checkpoint.has_ctranslate2
    assert toy_checkpoint.optional(WEIGHTS)
    assert toy_checkpoint.card.training["log"] == "toy"
    assert toy_checkpoint.card.prompt == PromptConfig()


@pytest.mark.parametrize("name", ["ct2/model.bin", "tokenizer.json", "model.safetensors"])
def test_a_damaged_file_is_named(copy: Path, name: str) -> None:
    path = copy / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointCorruptError, match=name):
        open_checkpoint(copy)
    path.write_bytes(data[:-1])
    with pytest.raises(CheckpointCorruptError, match="bytes"):
        open_checkpoint(copy, verify=False)
    path.unlink()
    with pytest.raises(CheckpointCorruptError, match="missing"):
        open_checkpoint(copy)


def test_what_is_no_checkpoint(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(CheckpointNotFoundError, match="ONEBAR_CHECKPOINT"):
        open_checkpoint(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointNotFoundError, match=CARD):
        open_checkpoint(tmp_path / "empty")
    for bad in (b"", b"{", b"[]", b'{"format": 1}', b"\xff"):
        (copy / CARD).write_bytes(bad)
        with pytest.raises(CheckpointCorruptError, match=CARD):
            open_checkpoint(copy)


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("format", 99, CheckpointMismatchError),
        ("name", "demo-00000000", CheckpointMismatchError),
        ("preset", "base", CheckpointMismatchError),
        ("generation", {"length_penalty": 9.0}, CheckpointMismatchError),
        ("files", {"../x": {"size": 1, "sha256": ""}}, CheckpointCorruptError),
        ("files", {"/etc/hosts": {"size": 1, "sha256": ""}}, CheckpointCorruptError),
        ("files", 3, CheckpointCorruptError),
    ],
)
def test_an_edited_card_is_told(
    copy: Path, field: str, value: object, error: type[CheckpointError]
) -> None:
    card = json.loads((copy / CARD).read_text())
    card[field] = value
    (copy / CARD).write_text(json.dumps(card))
    with pytest.raises(error):
        open_checkpoint(copy)


def _seal(out: Path, text: str) -> Checkpoint:
    with staging(out) as staged:
        (staged / "tokenizer.json").write_text(text)
        return seal(
            staged,
            out,
            preset="tiny",
            prompt=PromptConfig(),
            generation=GenerationConfig(),
            training={},
        )


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = _seal(out, "one")
    with staging(out) as staged:  # never sealed
        (staged / "tokenizer.json").write_text("broken")
    assert open_checkpoint(out) == first
    second = _seal(out, "two")
    assert second.name != first.name
    assert open_checkpoint(out) == second
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_name_does_not_hang_on_how_a_config_came_to_be(tmp_path: Path) -> None:
    """Read back, spelled out or left to the defaults: equal configs make one name."""
    path = _seal(tmp_path / "out", "one").path / CARD
    card = json.loads(path.read_text())
    assert card["prompt"]["text_bytes"] == PromptConfig().text_bytes
    for part in ("prompt", "generation"):
        path.write_text(json.dumps({**card, part: {}}))
        assert open_checkpoint(path.parent).name == card["name"]


def test_a_new_setting_renames_no_checkpoint(tmp_path: Path) -> None:
    """A card of the first release opens under its name, whatever settings were added since."""
    (tmp_path / "x").write_bytes(b"one")
    digest = hashlib.sha256(b"one").hexdigest()
    card = {
        "format": 1,
        "name": "tiny-4bda4c91",
        "preset": "tiny",
        "created_at": "2026-01-01T00:00:00+00:00",
        "prompt": {
            "text": True, "summary": True, "anchors": True, "history": True, "text_bytes": 176,
            "summary_bytes": 72, "anchors_bytes": 112, "history_bytes": 56, "max_anchors": 8,
            "max_history": 3,
        },
        "generation": {"max_source_tokens": 96, "max_target_tokens": 24, "length_penalty": 0.0},
        "files": {"x": {"size": 3, "sha256": digest}},
        "training": {},
    }  # fmt: skip
    (tmp_path / CARD).write_text(json.dumps(card))
    assert open_checkpoint(tmp_path).name == card["name"]


def test_facts_can_be_added_without_making_another_checkpoint(tmp_path: Path) -> None:
    first = _seal(tmp_path / "out", "one")
    after = annotate(tmp_path / "out", {"held_out": {"hr_k": 0.5}})
    assert after.name == first.name
    assert open_checkpoint(tmp_path / "out").card.training == {"held_out": {"hr_k": 0.5}}


def test_what_is_no_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointMismatchError, match="no checkpoint"):
        _seal(tmp_path, "x")
    assert (tmp_path / "thesis.txt").exists()


def test_a_long_prompt_loses_the_ends_of_its_longest_fields(toy_checkpoint: Checkpoint) -> None:
    tokenizer = toy_checkpoint.tokenizer()
    prompt = f"{'shoes ' * 500}[SEP] {'red ' * 500}[SEP] lamp [SEP] kettle"
    (ids,) = tokenizer.encode([prompt])
    assert len(ids) == tokenizer.max_source_tokens
    tokens = tokenizer.tokens(ids)
    assert tokens.count("[SEP]") == 3
    assert (tokens[0], tokens[-1]) == ("<s>", "</s>")
    assert tokenizer.decode(ids[1:]).endswith("red lamp kettle")


def test_trim() -> None:
    fields = [[1] * 10, [2] * 3, [3] * 8]
    trim(fields, 9)
    assert list(map(len, fields)) == [3, 3, 3]
    trim(fields, 0)
    assert fields == [[], [], []]


@pytest.mark.parametrize("text", ["red lamp", "连衣裙 夏季", "naïve café 3000mah", "😀 ok"])
def test_tokens_give_the_text_back(toy_checkpoint: Checkpoint, text: str) -> None:
    tokenizer = toy_checkpoint.tokenizer()
    (ids,) = tokenizer.encode_targets([text])
    assert tokenizer.decode(ids) == text
