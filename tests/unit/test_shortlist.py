"""What a shortlist allows, and that CTranslate2 chooses from it alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import toy_dataset

from onebar.checkpoint import SHORTLIST, Checkpoint, CheckpointMismatchError
from onebar.engines.ct2 import CTranslate2Engine
from onebar.prompt import build_prompt
from onebar.training.shortlist import (
    Shortlist,
    make_shortlist,
    shortlist_of,
    with_shortlist,
    write_shortlist,
)

ids = st.lists(st.integers(0, 12), min_size=1, max_size=6)


def test_an_entry_allows_what_goes_with_it() -> None:
    pairs = [([1, 2], [10, 9]), ([1, 2], [10, 9]), ([3], [11, 9]), ([3, 2], [11, 9])]
    found = make_shortlist(pairs, always=(0,), common=1, each=1)
    assert found.common == (0, 9)
    # 2 says little about either, for it is nearly everywhere.
    assert found.rows == {1: (10,), 2: (10,), 3: (11,)}
    assert found.allowed([3, 7]) == {0, 9, 11, 3, 7}
    lines = Shortlist((0,), {1: (2,)}).lines(["a", "b", "c"])
    assert list(lines) == ["\ta", "a\ta", "b\tb c", "c\tc"]


@given(st.lists(st.tuples(ids, ids), max_size=12), st.integers(0, 4), st.integers(0, 3))
def test_it_does_not_depend_on_the_order_of_pairs_and_keeps_its_limits(
    pairs: list[tuple[list[int], list[int]]], common: int, each: int
) -> None:
    found = make_shortlist(pairs, always=(0, 1), common=common, each=each)
    assert found == make_shortlist(reversed(pairs), always=(0, 1), common=common, each=each)
    assert len(set(found.common)) == len(found.common) <= 2 + common
    for i, row in found.rows.items():
        assert len(row) <= each
        assert not {i, *found.common} & set(row)


def test_queries_are_made_of_what_the_shortlist_allows(
    toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    dataset = toy_dataset(tmp_path / "dataset", 60)
    made = with_shortlist(toy_checkpoint, dataset, tmp_path / "short")
    assert made.has_shortlist
    assert made.name != toy_checkpoint.name
    assert made.card.training == toy_checkpoint.card.training
    tokenizer = made.tokenizer()
    short = shortlist_of(dataset, tokenizer, made.card.prompt)
    prompts = [build_prompt(t.evidence, made.card.prompt) for t in dataset.read("test")][:8]
    engine = CTranslate2Engine(made)
    for prompt, candidates in zip(prompts, engine.generate(prompts, 8), strict=True):
        allowed = short.allowed(tokenizer.encode([prompt])[0])
        for candidate in candidates:
            assert {*tokenizer.pieces([candidate.text])[0]} <= allowed
    engine.close()


def test_one_that_allows_next_to_nothing_is_kept_to(
    toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    dataset = toy_dataset(tmp_path / "dataset", 20)
    made = with_shortlist(toy_checkpoint, dataset, tmp_path / "short")
    tokenizer = made.tokenizer()
    write_shortlist(Shortlist((tokenizer.eos_id, tokenizer.reject_id), {}), tokenizer, made.path)
    prompt = build_prompt(next(dataset.read("test")).evidence, made.card.prompt)
    allowed = {*tokenizer.encode([prompt])[0], tokenizer.reject_id}
    engine = CTranslate2Engine(made)
    for candidate in engine.generate([prompt], 8)[0]:
        assert {*tokenizer.pieces([candidate.text])[0]} <= allowed
    engine.close()


def test_without_weights_for_ctranslate2_it_is_refused(
    toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from msgspec.structs import replace

    card = replace(
        toy_checkpoint.card,
        files={n: f for n, f in toy_checkpoint.card.files.items() if not n.startswith("ct2")},
    )
    with pytest.raises(CheckpointMismatchError, match=r"model\.bin"):
        with_shortlist(
            replace(toy_checkpoint, card=card), toy_dataset(tmp_path / "d", 20), tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()
    assert SHORTLIST == "ct2/vmap.txt"
