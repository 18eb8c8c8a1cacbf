"""Both engines on one trained checkpoint: right, reproducible, and agreeing with transformers."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from toy import toy_prompts, toy_triggers

from onebar.evidence.prompt import PromptConfig, build_prompt
from onebar.evidence.text import REJECT
from onebar.generator.checkpoint import (
    MODEL,
    SHORTLIST,
    Checkpoint,
    CheckpointMismatchError,
    open_checkpoint,
)
from onebar.generator.ct2 import CTranslate2Engine, groups, has_avx512
from onebar.generator.engine import Engine, EngineError, ordered
from onebar.generator.load import load_engine
from onebar.records import Candidate
from onebar.training.models.export import export_again, export_checkpoint

BEAMS = 8


@pytest.fixture(scope="module", params=["ctranslate2", "torch"])
def engine(request: pytest.FixtureRequest, toy_checkpoint: Checkpoint) -> Iterator[Engine]:
    engine = load_engine(toy_checkpoint, engine=request.param, beam_size=BEAMS)
    yield engine
    engine.close()


def test_it_learned_the_task(engine: Engine) -> None:
    triggers = list(toy_triggers(40, seed=99))
    prompts = [build_prompt(trigger.evidence, PromptConfig()) for trigger in triggers]
    right = sum(
        candidates[0].text == trigger.target
        for trigger, candidates in zip(triggers, engine.generate(prompts, BEAMS), strict=True)
    )
    assert right >= 38
    assert any(trigger.target == REJECT for trigger in triggers)


def test_candidates_are_ordered_log_probabilities(engine: Engine) -> None:
    found = engine.generate(toy_prompts(10, seed=3), BEAMS)
    assert max(map(len, found)) == BEAMS
    for candidates in found:
        assert 1 <= len(candidates) <= BEAMS
        assert len({candidate.text for candidate in candidates}) == len(candidates)
        scores = [candidate.score for candidate in candidates]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] <= 0
        assert [candidate.text for candidate in ordered(candidates)] == [
            candidate.text for candidate in candidates
        ]


def test_a_result_does_not_depend_on_its_company(engine: Engine) -> None:
    """Invariant 6: alone, together, and in any order, to the last bit."""
    prompts = ["", " [SEP]  [SEP]  [SEP] ", "x " * 400, *toy_prompts(40, seed=5)]
    alone = {prompt: engine.generate([prompt], BEAMS)[0] for prompt in prompts}
    shuffled = random.Random(0).sample(prompts, len(prompts))
    for at in range(0, len(shuffled), 16):
        batch = shuffled[at : at + 16]
        for prompt, candidates in zip(batch, engine.generate(batch, BEAMS), strict=True):
            assert candidates == alone[prompt]


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (2, 1), (1, 2)])
def test_nor_does_it_in_the_shipped_model(workers: int, threads: int) -> None:
    """Prompts of one length are decoded together there, in groups of every size."""
    engine = load_engine(open_checkpoint(), workers=workers, threads=threads)
    assert isinstance(engine, CTranslate2Engine)
    prompts = list(dict.fromkeys(toy_prompts(150, seed=5)))
    sizes = Counter(map(engine.company, prompts)).values()
    assert min(sizes) == 1
    assert max(sizes) > engine.batch_limit
    alone = {prompt: engine.generate([prompt], BEAMS)[0] for prompt in prompts}
    for seed in range(3):
        shuffled = random.Random(seed).sample(prompts, len(prompts))
        together = engine.generate(shuffled, BEAMS)
        assert together == [alone[prompt] for prompt in shuffled]
    engine.close()


def test_wider_beams_have_less_company_and_floats_and_shortlists_none(
    toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    from onebar.training.models.pretrained import load_pretrained

    def limit(checkpoint: Checkpoint, beams: int) -> int:
        return CTranslate2Engine(checkpoint, beam_size=beams).batch_limit

    assert [limit(toy_checkpoint, beams) for beams in (8, 10, 64)] == [6, 4, 1]
    work = tmp_path / "work"
    work.mkdir()
    floats = export_checkpoint(
        *load_pretrained(toy_checkpoint.path, work),
        tmp_path / "float",
        preset="toy",
        prompt=PromptConfig(),
        generation=toy_checkpoint.card.generation,
        training={},
        quantization="float32",
    )
    assert limit(floats, 8) == 1
    files = toy_checkpoint.card.files
    card = replace(toy_checkpoint.card, files={**files, SHORTLIST: files[MODEL]})
    assert limit(replace(toy_checkpoint, card=card), 8) == 1


@given(st.lists(st.integers(0, 5)), st.integers(1, 4))
def test_groups_have_one_length_and_no_more_than_may_be(lengths: list[int], limit: int) -> None:
    found = groups(lengths, limit)
    assert sorted(at for group in found for at in group) == list(range(len(lengths)))
    assert all(group == sorted(group) and len(group) <= limit for group in found)
    assert [group[0] for group in found] == sorted(group[0] for group in found)
    for group in found:
        assert len({lengths[at] for at in group}) == 1
    # No length has more groups than it needs.
    groups_of = Counter(lengths[group[0]] for group in found)
    assert groups_of == {length: -(-n // limit) for length, n in Counter(lengths).items()}


def test_fewer_candidates_are_the_first_of_more(engine: Engine) -> None:
    (prompt,) = toy_prompts(1, seed=6)
    assert engine.generate([prompt], 3)[0] == engine.generate([prompt], BEAMS)[0][:3]
    assert len(engine.generate([prompt], BEAMS + 2)[0]) == BEAMS + 2
    assert engine.generate([], BEAMS) == []


@pytest.mark.parametrize("name", ["ctranslate2", "torch"])
def test_a_closed_engine_says_so(name: str, toy_checkpoint: Checkpoint) -> None:
    engine = load_engine(toy_checkpoint, engine=name)  # type: ignore[arg-type]
    assert engine.model == toy_checkpoint.name
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.generate(["x"], 1)


def test_int8_agrees_with_float(toy_checkpoint: Checkpoint) -> None:
    prompts = toy_prompts(60, seed=7)
    fast = load_engine(toy_checkpoint, engine="ctranslate2").generate(prompts, BEAMS)
    exact = load_engine(toy_checkpoint, engine="torch").generate(prompts, BEAMS)
    same = sum(a[0].text == b[0].text for a, b in zip(fast, exact, strict=True))
    assert same >= 59
    for a, b in zip(fast, exact, strict=True):
        assert a[0].score == pytest.approx(b[0].score, abs=0.2)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_torch_search_agrees_with_transformers(
    toy_checkpoint: Checkpoint, length_penalty: float, tmp_path: Path
) -> None:
    import torch

    from onebar.generator.bart import Bart
    from onebar.generator.torch_engine import _pad, search
    from onebar.training.models.pretrained import load_pretrained

    tokenizer = toy_checkpoint.tokenizer()
    most = toy_checkpoint.card.generation.max_target_tokens
    sources = tokenizer.encode(toy_prompts(12, seed=8))
    bart = Bart(
        toy_checkpoint.need("config.json"),
        toy_checkpoint.need("model.safetensors"),
        torch.device("cpu"),
    )
    source, hidden = _pad(sources, tokenizer.pad_id, torch.device("cpu"))
    with torch.inference_mode():
        cache = bart.begin(source, hidden, beams=BEAMS, most=most)
        ids, scores = search(
            *(bart, cache),
            beams=BEAMS,
            hypotheses=BEAMS,
            most=most,
            length_penalty=length_penalty,
        )
        expected = (
            load_pretrained(toy_checkpoint.path, tmp_path)[0]
            .eval()
            .generate(
                input_ids=source,
                attention_mask=(~hidden).long(),
                num_beams=BEAMS,
                num_return_sequences=BEAMS,
                early_stopping=length_penalty > 0,
                length_penalty=length_penalty,
                max_new_tokens=most,
                min_new_tokens=0,
                do_sample=False,
                decoder_start_token_id=tokenizer.eos_id,
                pad_token_id=tokenizer.pad_id,
                output_scores=True,
                return_dict_in_generate=True,
            )
        )
    theirs = [tokenizer.decode(row[1:]) for row in expected.sequences.tolist()]
    ours = [tokenizer.decode(row) for rows in ids.tolist() for row in rows]
    # Without a penalty transformers waits until none can become the eighth, we until the first.
    each = 1 if length_penalty > 0 else BEAMS
    assert ours[::each] == theirs[::each]
    torch.testing.assert_close(
        scores.view(-1)[::each], expected.sequences_scores[::each], atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_both_engines_find_the_same_in_float32(
    toy_checkpoint: Checkpoint, length_penalty: float, tmp_path: Path
) -> None:
    """All candidates: it is one search, wherever it stops."""
    always = export_again(toy_checkpoint.path, tmp_path / "always", exact_within=1e9)
    generation = replace(always.card.generation, length_penalty=length_penalty)
    always = replace(always, card=replace(always.card, generation=generation))
    prompts = ["", *toy_prompts(40, seed=13)]
    one, other = (
        load_engine(always, engine=name).generate(prompts, BEAMS)
        for name in ("ctranslate2", "torch")
    )
    for a, b in zip(one, other, strict=True):
        assert sorted(each.text for each in a) == sorted(each.text for each in b)
        assert [each.score for each in a] == pytest.approx([each.score for each in b], abs=1e-3)


def test_close_calls_are_searched_again_in_float32(
    toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """Where 8 bits are sure of the first their answer stands, to the bit."""
    prompts = toy_prompts(60, seed=17)

    def found(exact_within: float) -> list[list[Candidate]]:
        path = tmp_path / str(exact_within)
        made = export_again(toy_checkpoint.path, path, exact_within=exact_within)
        return load_engine(made, engine="ctranslate2").generate(prompts, BEAMS)

    rough, exact = found(0.0), found(1e9)
    gaps = sorted(each[0].score - each[1].score for each in rough)
    within = gaps[20]
    for a, b, c in zip(rough, exact, found(within), strict=True):
        assert c == (b if a[0].score - a[1].score < within else a)
    assert sum(a != b for a, b in zip(rough, exact, strict=True)) > 50


@pytest.mark.parametrize(
    ("cpuinfo", "has"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu avx512f avx512dq avx512cd avx512bw avx512vl\nbugs: x",
            True,
        ),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512cd\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False),
        ("", False),
    ],
)
def test_avx512_is_told_by_the_flags_of_the_cpu(cpuinfo: str, has: bool) -> None:
    assert has_avx512(cpuinfo) is has


def test_ties_stand_in_the_order_of_their_text() -> None:
    tied = [*(Candidate(text, -1.0) for text in "bb"), Candidate("a", -1.000001)]
    tied.append(Candidate("c", -0.5))
    assert [candidate.text for candidate in ordered(tied)] == ["c", "a", "b"]


def test_the_weights_asked_for_must_be_there(toy_checkpoint: Checkpoint) -> None:
    import msgspec

    card = toy_checkpoint.card
    files = {name: fact for name, fact in card.files.items() if not name.startswith("ct2/")}
    without = msgspec.structs.replace(
        toy_checkpoint, card=msgspec.structs.replace(card, files=files)
    )
    with pytest.raises(CheckpointMismatchError, match=r"ct2/model\.bin"):
        load_engine(without, engine="ctranslate2")
    engine = load_engine(without, engine="auto")
    assert type(engine).__name__ == "TorchEngine"
    engine.close()


def test_serving_on_a_cpu_loads_no_torch() -> None:
    code = (
        "import sys, onebar.recommending.recommend, onebar.generator.batching\n"
        "import onebar.generator.ct2, onebar.generator.checkpoint\n"
        "print([m for m in ('torch', 'transformers', 'numpy', 'ctranslate2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_generating_with_ctranslate2_loads_no_torch(toy_checkpoint: Checkpoint) -> None:
    code = (
        "import sys\n"
        "from onebar.generator.checkpoint import open_checkpoint\n"
        "from onebar.generator.load import load_engine\n"
        "engine = load_engine(open_checkpoint(sys.argv[1]))\n"
        "assert engine.generate(['red lamp [SEP] [SEP] [SEP] '], 2)[0]\n"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(toy_checkpoint.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
