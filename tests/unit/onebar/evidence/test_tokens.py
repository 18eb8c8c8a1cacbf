"""Budgets of a prompt's fields in tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bart_source import bart, byte_level_tokenizer, wordpiece_vocabulary, write_bart
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.prompt import PART
from onebar.evidence.text import SEP
from onebar.evidence.tokens import PromptTokenizer, TokenizerMismatchError
from onebar.generator.checkpoint import SHIPPED, GenerationConfig
from onebar.training.models.pretrained import load_pretrained

Budgets = tuple[int, int, int, int]
LONG = 4096


@pytest.fixture(scope="module", params=["ours", "byte-level", "wordpiece"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `tokenizer.json` of each family."""
    if request.param == "ours":
        return SHIPPED / "tokenizer.json"
    directory = tmp_path_factory.mktemp("bart")
    if request.param == "byte-level":
        write_bart(directory / "bart", bart(415), byte_level_tokenizer())
    else:
        words = wordpiece_vocabulary()
        model = bart(
            len(words), bos_token_id=3, eos_token_id=4, pad_token_id=0, decoder_start_token_id=4
        )
        write_bart(directory / "bart", model)
        (directory / "bart" / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return load_pretrained(directory / "bart", directory)[1]


def budgeted(path: Path, budgets: Budgets | None, most: int = LONG) -> PromptTokenizer:
    config = GenerationConfig(max_source_tokens=most, max_target_tokens=8, field_tokens=budgets)
    return config.tokenizer(path)


def fields_of(tokenizer: PromptTokenizer, prompt: str) -> list[list[int]]:
    """The ids of each field."""
    fields: list[list[int]] = [[]]
    for token in tokenizer.encode([prompt])[0][1:-1]:
        if token == tokenizer.sep_id:
            fields.append([])
        else:
            fields[-1].append(token)
    return fields


texts = st.text("red lamp连衣裙😀|é ", max_size=24).map(lambda text: " ".join(text.split()))
queries = texts.map(lambda text: text.replace("|", "")).map(str.strip).filter(bool)
lists = st.lists(queries, max_size=6).map(PART.join)
prompts = st.tuples(texts, texts, lists, lists)


@given(prompts, st.tuples(*[st.integers(0, 12)] * 4))
def test_every_field_keeps_to_its_budget(
    path: Path, fields: tuple[str, str, str, str], budgets: Budgets
) -> None:
    prompt = f" {SEP} ".join(fields)
    free, tight = budgeted(path, None), budgeted(path, budgets)
    everything, kept = fields_of(free, prompt), fields_of(tight, prompt)
    assert len(kept) == 4
    for at, (all_ids, ids, budget) in enumerate(zip(everything, kept, budgets, strict=True)):
        assert ids == all_ids[: len(ids)]
        assert len(ids) <= budget
        if len(all_ids) <= budget:
            assert ids == all_ids
        elif at < 2:
            assert len(ids) == budget
        else:
            # What is left are whole queries, as many as fit.
            starts = [
                len(free.pieces([PART.join(fields[at].split(PART)[:count])])[0]) if count else 0
                for count in range(fields[at].count(PART) + 1)
            ]
            assert len(ids) == max(size for size in starts if size <= budget)


def test_a_prompt_of_other_fields_has_no_budgets(path: Path) -> None:
    """The verbose form has no separators."""
    tokenizer = budgeted(path, (0, 0, 0, 0))
    words = "red lamp red lamp"
    assert tokenizer.encode([words]) == budgeted(path, None).encode([words])
    assert fields_of(tokenizer, f"{words} {SEP} {words}")[0]
    assert fields_of(tokenizer, f" {SEP} ".join([words] * 4)) == [[]] * 4


def test_budgets_come_before_the_length_of_the_whole(path: Path) -> None:
    prompt = f" {SEP} ".join(["red " * 50, "lamp " * 50, "red lamp", "kettle"])
    tokenizer = budgeted(path, (30, 2, 10, 10), most=32)
    assert len(tokenizer.encode([prompt])[0]) == 32
    sizes = [len(field) for field in fields_of(tokenizer, prompt)]
    assert sizes[1:] == [
        2,
        *(len(ids) for ids in fields_of(budgeted(path, None), prompt)[2:]),
    ]


def test_an_empty_prompt_is_not_nothing(path: Path) -> None:
    tokenizer = budgeted(path, (0, 0, 0, 0))
    assert len(tokenizer.encode([""])[0]) == 3


def test_budgets_are_written_to_the_card_and_are_no_less_than_nothing() -> None:
    config = GenerationConfig(field_tokens=(40, 16, 24, 12))
    assert msgspec.json.decode(msgspec.json.encode(config), type=GenerationConfig) == config
    with pytest.raises(ValueError, match="field_tokens"):
        GenerationConfig(field_tokens=(1, 2, 3, -1))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"field_tokens": [1, 2, -3, 4]}, GenerationConfig)


def test_a_tokenizer_that_is_none_for_prompts_is_told(tmp_path: Path) -> None:
    raw: dict[str, Any] = byte_level_tokenizer()
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(TokenizerMismatchError, match=r"\[SEP\], \[REJECT\]"):
        PromptTokenizer(tmp_path / "tokenizer.json", max_source_tokens=9, max_target_tokens=9)


def test_budgets_can_be_given_on_the_command_line() -> None:
    import typer

    from onebar.cli.training.train import _put
    from onebar.training.recipe import stage_config

    values: dict[str, Any] = {"dataset": "data", "out": "out"}
    _put(values, "generation.field_tokens=[44, 16, 24, 10]")
    generation = stage_config("sft", values).generation
    assert generation == GenerationConfig(field_tokens=(44, 16, 24, 10))
    with pytest.raises(typer.BadParameter, match="list"):
        _put(values, "generation.field_tokens=[44, 16")
