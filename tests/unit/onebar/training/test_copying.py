"""What teaches a small model to copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onebar.evidence.text import REJECT
from onebar.evidence.tokens import MASK, RESERVED, PromptTokenizer
from onebar.training.batches import Example, pad_labels, pad_sources
from onebar.training.losses import IGNORED
from onebar.training.models.architecture import decode, encode
from onebar.training.models.copying import Pointing, pointing_loss, prepare
from onebar.training.models.tokenizer import train_tokenizer
from onebar.training.presets import Preset, bart_config
from onebar.training.privileged import STRANGE, privileged_examples

SPECIALS = len(RESERVED)


@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(2, 6), st.integers(1, 4))
def test_the_pointing_loss_is_that_of_a_loop(seed: int, b: int, s: int, n: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(b, 2, n, s, generator=generator, dtype=torch.float64)
    source = torch.randint(5, 10, (b, s), generator=generator)
    labels = torch.randint(5, 10, (b, n), generator=generator)
    labels[0, -1] = IGNORED
    terms = []
    for row in range(b):
        for at in range(n):
            label = int(labels[row, at])
            places = (source[row] == label).nonzero().flatten()
            if label < SPECIALS or len(places) == 0:
                continue
            shares = scores[row, :, at].softmax(-1)[:, places].sum(-1)
            terms.append(-shares.log().mean())
    expected = float(torch.stack(terms).mean()) if terms else 0.0
    found = float(pointing_loss(scores, source, labels, SPECIALS))
    assert found == pytest.approx(expected, abs=1e-9)


def _model(path: Path, heads: int, width: int) -> tuple[Any, PromptTokenizer]:
    from transformers import BartForConditionalGeneration

    words = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in ("lar", "mon", "sut")]
    train_tokenizer(words * 4, path, vocab_size=600)
    tokenizer = PromptTokenizer(path, max_source_tokens=64, max_target_tokens=16)
    torch.manual_seed(0)
    shape = Preset("shape", 600, width, heads, 2 * width, 2, 2, dropout=0.0)
    return BartForConditionalGeneration(bart_config(shape, tokenizer.vocab_size)).eval(), tokenizer


def _copied(model: Any, tokenizer: PromptTokenizer) -> float:
    """Share of the tokens after the first that the model would copy from a prompt."""
    prompts = [f"ba{x}lar gemon | do{x}sut kular bimon | fu{x}lar dasut" for x in "aeiou"]
    queries = [f"do{x}sut kular bimon" for x in "aeiou"]
    source, mask = map(torch.from_numpy, pad_sources(tokenizer.encode(prompts), tokenizer.pad_id))
    labels = torch.from_numpy(pad_labels(tokenizer.encode_targets(queries)))
    with torch.no_grad():
        logits = decode(model, encode(model, source, mask), mask, labels)
    later = labels >= SPECIALS
    later[:, 0] = False
    return float((logits.argmax(-1) == labels)[later].float().mean())


def test_a_prepared_model_copies_before_it_has_learnt_anything(tmp_path: Path) -> None:
    model, tokenizer = _model(tmp_path / "tokenizer.json", 4, 256)
    assert _copied(model, tokenizer) < 0.2
    prepare(model)
    assert _copied(model, tokenizer) > 0.5


def test_without_room_nothing_is_prepared(tmp_path: Path) -> None:
    model, _ = _model(tmp_path / "tokenizer.json", 2, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepare(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_pointing_sees_what_the_attention_reads(tmp_path: Path) -> None:
    model, tokenizer = _model(tmp_path / "tokenizer.json", 4, 128)
    source, mask = map(torch.from_numpy, pad_sources(tokenizer.encode(["balar"]), 1))
    labels = torch.from_numpy(pad_labels(tokenizer.encode_targets(["balar"])))
    pointing = Pointing(model)
    with pointing.watch():
        decode(model, encode(model, source, mask), mask, labels)
    loss = pointing.loss(source, mask, labels, SPECIALS)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) > 0
    assert model.get_decoder().layers[-1].encoder_attn.q_proj.weight.grad is not None


def test_privileged_examples_have_a_marked_answer_of_their_own_or_of_another() -> None:
    plain = [Example(f"title {at} [SEP]  [SEP] a{at} [SEP] ", f"query {at}") for at in range(300)]
    plain[5] = Example("risky [SEP]  [SEP]  [SEP] ", REJECT)
    mixed = list(privileged_examples(plain, 0.5, seed=1))
    assert mixed == list(privileged_examples(plain, 0.5, seed=1))
    assert [example for example in mixed if MASK not in example.prompt] == plain
    added = [example for example in mixed if MASK in example.prompt]
    assert all(f"{MASK} {example.target}{MASK}" in example.prompt for example in added)
    assert all(example.target != REJECT for example in added)
    assert len(added) == pytest.approx(150, abs=40)
    own = sum(f"title {example.target.split()[1]} " in example.prompt for example in added)
    assert own == pytest.approx((1 - STRANGE) * len(added), abs=25)
