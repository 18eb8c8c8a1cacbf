"""Training: what goes in, the order it goes in, that a run goes on where it stopped, and that each
stage does what it is for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from epochs import epoch_batches
from hypothesis import given
from hypothesis import strategies as st
from toy import CHATTER, COLOURS, THINGS, toy_dataset, toy_triggers

from onebar.evidence.prompt import PART, PromptConfig, build_prompt
from onebar.evidence.text import REJECT, SEP
from onebar.evidence.tokens import MASK, PAD_ID
from onebar.generator.checkpoint import WEIGHTS, Checkpoint, open_checkpoint
from onebar.generator.load import load_engine
from onebar.training.batches import (
    Example,
    Lists,
    Pairs,
    length_sorted,
    preference_examples,
    sft_examples,
)
from onebar.training.listwise import (
    Listwise,
    ListwiseConfig,
    contradicted,
    train_listwise,
)
from onebar.training.loop import Loop, Stage, make_accelerator, schedule, step_seed
from onebar.training.piopd import PIOPD, PIOPDConfig, train_piopd
from onebar.training.presets import preset
from onebar.training.pretrain import (
    Pretrain,
    PretrainConfig,
    hide_spans,
    train_pretrain,
    unseen_texts,
)
from onebar.training.privileged import (
    TeacherGainsNothingError,
    posterior_prompt,
    teacher_gain,
)
from onebar.training.run import RunConfig, begin
from onebar.training.sft import SFT, SFTConfig, train_sft
from onebar.training.validation import validate
from onebar.triggers import (
    DatasetCorruptError,
    DatasetNotFoundError,
    EmptyDatasetError,
    Preference,
    Trigger,
    open_dataset,
    write_dataset,
)


def run_options(directory: Path, name: str, **changes: object) -> dict[str, Any]:
    path = directory / "dataset"
    if not path.exists():
        toy_dataset(path, 300)
    options: dict[str, object] = {
        "dataset": path,
        "out": directory / name,
        "preset": "tiny",
        "steps": 6,
        "batch_size": 8,
        "threads": 1,
        "device": "cpu",
        "log_every": 1,
        "progress": False,
    }
    return {**options, **changes}


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(str(open_checkpoint(path).need("model.safetensors")))


def curve(directory: Path, name: str, tag: str = "loss") -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # A file at a time: of two that were begun in one second TensorBoard may take the later for the
    # earlier, and leave out the other.
    points = []
    for path in (directory / "curves" / name).iterdir():
        events = EventAccumulator(str(path))
        events.Reload()
        points += events.Scalars(tag)
    return [point.value for point in sorted(points, key=lambda point: point.step)]


def test_a_dataset_survives_its_files(tmp_path: Path) -> None:
    triggers = [
        *toy_triggers(20, seed=1),
        Trigger(trigger_id="连衣裙", kind="search", ts=1.5, video_id="v", target="q\u2028"),
    ]
    dataset = write_dataset(tmp_path / "d", {"train": triggers}, ["a", "连衣裙"])
    assert list(dataset.read("train")) == triggers
    assert list(dataset.read("train", ("search",))) == triggers[-1:]
    assert list(dataset.read("test")) == []
    assert list(dataset.texts()) == ["a", "连衣裙"]


def test_what_is_no_dataset_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="onebar dataset"):
        open_dataset(tmp_path)
    dataset = toy_dataset(tmp_path / "d", 20)
    (dataset.path / "train.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(DatasetCorruptError, match=r"train\.parquet"):
        list(dataset.read("train"))
    (dataset.path / "valid.parquet").unlink()
    with pytest.raises(DatasetCorruptError, match=r"valid\.parquet is missing"):
        open_dataset(dataset.path)
    (dataset.path / "dataset.json").write_bytes(b"{")
    with pytest.raises(DatasetCorruptError, match=r"dataset\.json"):
        open_dataset(dataset.path)


def test_batches_hold_every_example_once_and_are_fixed_by_the_seed(
    toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    tokenizer = toy_checkpoint.tokenizer()
    dataset = toy_dataset(tmp_path, 256, seed=2)
    examples = list(sft_examples(dataset, "train", PromptConfig(), searches=False))
    pairs = Pairs(examples, tokenizer)
    assert len(pairs) == 256

    def epoch(number: int, seed: int = 0) -> list[list[int]]:
        return [
            row[row != PAD_ID].tolist()
            for batch in epoch_batches(pairs, 16, seed=seed, epoch=number)
            for row in batch.source
        ]

    sources = tokenizer.encode([example.prompt for example in examples])
    assert sorted(epoch(0)) == sorted(sources)
    assert epoch(0) == epoch(0)
    assert epoch(0) != epoch(1)
    assert epoch(0) != epoch(0, seed=1)


@given(st.integers(1, 200), st.integers(1, 40), st.integers(0, 3))
def test_an_epoch_has_no_place_twice(count: int, size: int, epoch: int) -> None:
    lengths = np.arange(count) % 7
    batches = list(length_sorted(lengths, size, seed=0, epoch=epoch))
    places = np.concatenate(batches)
    assert len(set(places.tolist())) == len(places)
    assert all(len(batch) == min(size, count) for batch in batches)
    assert len(places) > count - 64 * size - size


def test_a_batch_is_padded_as_the_loss_expects(toy_checkpoint: Checkpoint) -> None:
    tokenizer = toy_checkpoint.tokenizer()
    examples = [Example("red", "red lamp"), Example("red lamp kettle", REJECT)]
    (batch,) = epoch_batches(Pairs(examples, tokenizer), 2, seed=0, epoch=0)
    for source, mask, labels in zip(batch.source, batch.mask, batch.labels, strict=True):
        assert ((source == PAD_ID) == (mask == 0)).all()
        wanted = labels[labels != -100]
        assert (np.sort(np.flatnonzero(labels != -100)) == np.arange(len(wanted))).all()
        text = tokenizer.decode(source[1:].tolist())
        assert tokenizer.decode(wanted.tolist()) == {e.prompt: e.target for e in examples}[text]


def test_preference_lists_keep_their_order(toy_checkpoint: Checkpoint, tmp_path: Path) -> None:
    two = Trigger(
        trigger_id="a", kind="click", ts=0.0, video_id="v", target="red lamp",
        preferences=(Preference("red lamp", 1), Preference("lamp", 5)),
    )  # fmt: skip
    three = Trigger(
        trigger_id="b", kind="click", ts=1.0, video_id="v", text="x", target="kettle",
        preferences=(Preference("kettle", 2), Preference("blue", 4), Preference("black", 6)),
    )  # fmt: skip
    alone = Trigger(
        trigger_id="c", kind="click", ts=2.0, video_id="v", target="q",
        preferences=(Preference("q", 2),),
    )  # fmt: skip
    dataset = write_dataset(tmp_path, {"train": [two, three, alone]})
    tokenizer = toy_checkpoint.tokenizer()
    lists = Lists(preference_examples(dataset, "train", PromptConfig()), tokenizer)
    assert len(lists) == 2
    (batch,) = epoch_batches(lists, 2, seed=0, epoch=0)
    found = {
        tuple(levels.tolist()): [tokenizer.decode(q[q != -100].tolist()) for q in labels]
        for labels, levels in zip(batch.labels, batch.levels, strict=True)
    }
    assert found == {(1, 5, 0): ["red lamp", "lamp", ""], (2, 4, 6): ["kettle", "blue", "black"]}
    assert (batch.labels[batch.levels == 0] == -100).all()


@given(st.floats(0, 1), st.floats(0.01, 0.5))
def test_the_rate_climbs_then_falls(done: float, warmup: float) -> None:
    assert 0 <= schedule(done, warmup) <= 1
    assert schedule(warmup, warmup) == 1.0
    assert schedule(1.0, warmup) == pytest.approx(0, abs=1e-9)
    if done >= warmup:
        assert schedule(done, warmup) >= schedule(min(1.0, done + 0.1), warmup)


def test_every_step_and_process_draws_its_own() -> None:
    seeds = {step_seed(seed, step, rank) for seed in (0, 1) for step in (0, 1) for rank in (0, 1)}
    assert len(seeds) == 8


def interrupted_at(
    step: int,
    go: Callable[[str], Path],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    what: str = "_step",
) -> None:
    """Ctrl-C in the next step, or the next `_validate`, when so many steps are done."""
    do = getattr(Loop, what)

    def interrupt(self: Any, *arguments: Any) -> Any:
        if self.progress.step == step:
            raise KeyboardInterrupt
        return do(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, what, interrupt)
        with pytest.raises(KeyboardInterrupt):
            go(name)


@pytest.mark.parametrize("stage", ["sft", "piopd"])
def test_an_interrupted_run_goes_on_and_ends_where_an_unbroken_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_checkpoint: Checkpoint, stage: str
) -> None:
    if stage == "sft":

        def go(name: str) -> Path:
            return train_sft(SFTConfig(**run_options(tmp_path, name), dropout=0.1))
    else:

        def go(name: str) -> Path:
            return train_piopd(
                PIOPDConfig(
                    **run_options(tmp_path, name, init=str(toy_checkpoint.path)), least_gain=-1.0
                )
            )

    whole = go("whole")
    interrupted_at(3, go, "broken", monkeypatch)
    assert not (tmp_path / "broken").exists()
    state = torch.load(tmp_path / ".broken.training" / "state.pt", weights_only=True)
    assert state["progress"]["step"] == 3
    resumed = go("broken")
    assert open_checkpoint(resumed).card.training["steps"] == 6
    ours = weights_of(resumed)
    for name, tensor in weights_of(whole).items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=1e-5)
    assert curve(tmp_path, "broken") == pytest.approx(curve(tmp_path, "whole"), rel=1e-5)
    assert not (tmp_path / ".broken.training").exists()


def test_one_seed_gives_the_same_curve_twice_and_another_gives_another(tmp_path: Path) -> None:
    train_sft(SFTConfig(**run_options(tmp_path, "a"), dropout=0.1))
    train_sft(SFTConfig(**run_options(tmp_path, "b"), dropout=0.1))
    train_sft(SFTConfig(**run_options(tmp_path, "c", seed=1), dropout=0.1))
    assert len(curve(tmp_path, "a")) == 6
    assert curve(tmp_path, "a") == curve(tmp_path, "b")
    assert curve(tmp_path, "a") != curve(tmp_path, "c")


def test_other_settings_do_not_go_on_from_a_state(tmp_path: Path) -> None:
    config = SFTConfig(**run_options(tmp_path, "x"))
    same = SFTConfig(**run_options(tmp_path, "x", threads=2, progress=True))
    assert config.fingerprint == same.fingerprint
    for change in ({"seed": 1}, {"steps": 7}, {"searches": False}):
        other = SFTConfig(**run_options(tmp_path, "x", **change))
        assert config.fingerprint != other.fingerprint


def test_a_checkpoint_can_be_trained_on_from(toy_checkpoint: Checkpoint, tmp_path: Path) -> None:
    options = run_options(
        tmp_path, "more", init=str(toy_checkpoint.path), steps=2, learning_rate=1e-5, weights=False
    )
    more = open_checkpoint(train_sft(SFTConfig(**options)))
    assert more.optional(WEIGHTS) is None
    assert more.need("tokenizer.json").read_bytes() == (
        toy_checkpoint.need("tokenizer.json").read_bytes()
    )
    assert more.card.training["parent"] == toy_checkpoint.name
    assert more.card.training["loss"] < 1.0  # an untrained model's is above 4


def test_time_ends_a_run_and_still_leaves_a_checkpoint(tmp_path: Path) -> None:
    options = run_options(tmp_path, "short", steps=10**9, minutes=0.01)
    checkpoint = open_checkpoint(train_sft(SFTConfig(**options)))
    assert 0 < checkpoint.card.training["steps"] < 10**9


@pytest.mark.parametrize(
    ("config", "run"),
    [
        (SFTConfig, train_sft),
        (ListwiseConfig, train_listwise),
        (PIOPDConfig, train_piopd),
        (PretrainConfig, train_pretrain),
    ],
)
def test_a_log_without_clicks_is_told_and_leaves_nothing(
    tmp_path: Path, toy_checkpoint: Checkpoint, config: type[RunConfig], run: Any
) -> None:
    write_dataset(tmp_path / "dataset", {})
    options = run_options(tmp_path, "none", init=str(toy_checkpoint.path))
    with pytest.raises(EmptyDatasetError):
        run(config(**options))
    assert not (tmp_path / "none").exists()


def test_presets_are_named() -> None:
    assert preset("demo").decoder_layers == 2
    with pytest.raises(ValueError, match="demo"):
        preset("huge")


# Pre-training ---------------------------------------------------------------------------------


@given(
    st.lists(st.integers(10, 99), min_size=1, max_size=60),
    st.integers(0, 1000),
    st.floats(0.05, 0.9),
)
def test_hidden_spans_leave_the_rest_in_order(ids: list[int], seed: int, share: float) -> None:
    hidden = hide_spans(ids, 4, share=share, mean=3.0, random=np.random.default_rng(seed))
    kept = [value for value in hidden if value != 4]
    rest = iter(ids)
    assert all(value in rest for value in kept)  # a subsequence
    gone = len(ids) - len(kept)
    assert gone <= max(1, round(share * len(ids)))
    if len(ids) > 1:
        assert kept
        assert 4 in hidden


def test_pretraining_learns_to_restore_text(tmp_path: Path) -> None:
    options = run_options(tmp_path, "pre", steps=120, batch_size=32)
    train_pretrain(PretrainConfig(**options))
    losses = curve(tmp_path, "pre")
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    # And what it learned is a start for stage 1.
    more = run_options(tmp_path, "sft", init=str(tmp_path / "pre"), steps=2)
    card = open_checkpoint(train_sft(SFTConfig(**more))).card
    assert card.training["parent"] == open_checkpoint(tmp_path / "pre").name


# Stage 2 --------------------------------------------------------------------------------------


def test_listwise_prefers_what_users_preferred(tmp_path: Path, toy_checkpoint: Checkpoint) -> None:
    """Taught that users want the other colour, the model comes to give it more."""
    triggers = [
        Trigger(
            trigger_id=t.trigger_id, kind="click", ts=t.ts, video_id=t.video_id, text=t.text,
            summary=t.summary, anchors=t.anchors, target=t.preferences[1].query,
            preferences=(Preference(t.preferences[1].query, 2), Preference(t.target, 5)),
        )
        for t in toy_triggers(200, seed=9)
        if t.kind == "click"
    ]  # fmt: skip
    write_dataset(tmp_path / "dataset", {"train": triggers})
    options = run_options(
        tmp_path, "dpo", init=str(toy_checkpoint.path), steps=40, batch_size=16,
        learning_rate=3e-3, threads=1,
    )  # fmt: skip
    path = train_listwise(ListwiseConfig(**options))
    accuracy = curve(tmp_path, "dpo", "accuracy")
    assert sum(accuracy[-5:]) / 5 > 0.9
    assert curve(tmp_path, "dpo", "ranking")[-1] < curve(tmp_path, "dpo", "ranking")[0]
    before, after = (load_engine(open_checkpoint(p)) for p in (toy_checkpoint.path, path))
    config = PromptConfig()

    def wanted(engine: Any) -> int:
        prompts = [build_prompt(trigger.evidence, config) for trigger in triggers[:40]]
        outputs = engine.generate(prompts, 8)
        return sum(
            out[0].text == trigger.target for out, trigger in zip(outputs, triggers, strict=False)
        )

    assert wanted(before) < 3
    assert wanted(after) > 10


def test_the_reference_stays_as_it_was(tmp_path: Path, toy_checkpoint: Checkpoint) -> None:
    config = ListwiseConfig(**run_options(tmp_path, "x", init=str(toy_checkpoint.path)))
    (tmp_path / "work").mkdir()
    start = begin(config, tmp_path / "work")
    stage: Stage[Any] = Listwise(config, start)
    batch = next(epoch_batches(stage.examples, 8, seed=0, epoch=0))
    first = stage.step(start.model, batch, lambda loss: loss.backward())
    # Nothing learned yet: r = 0 for all, so of three queries −log(1/3), two preferred... none is
    # preferred but the first: log 3.
    assert float(first["ranking"]) == pytest.approx(np.log(3), abs=1e-4)
    with torch.no_grad():
        for parameter in start.model.parameters():
            parameter.mul_(0.5)
    second = stage.step(start.model, batch, lambda loss: loss.backward())
    assert float(second["ranking"]) != pytest.approx(np.log(3), abs=1e-3)


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200)), min_size=2, max_size=6))
def test_a_pair_that_counts_contradict_is_one_of_others_clicks_and_what_was_passed_over(
    counts: list[tuple[int, int]],
) -> None:
    levels = torch.tensor([[1, 3, 4, 5, 6, 0][: len(counts)]])
    found = contradicted(levels, torch.tensor([counts]))[0]
    for j, i in found.nonzero().tolist():
        assert levels[0, j] in (3, 4)
        assert levels[0, i] == 5
        # Were the counts those of a sure winner, the pair would stand.
        counts[j] = (10_000, 9_999)
        counts[i] = (10_000, 100)
        assert not contradicted(levels, torch.tensor([counts]))[0, j, i]


def test_where_list_wise_training_begins_the_policy_is_its_reference(
    tmp_path: Path, toy_checkpoint: Checkpoint
) -> None:
    """Also with dropout: r = 0 for every query, so that no list is decided by a mask."""
    from onebar.training.run import begin

    options = run_options(tmp_path, "x", init=str(toy_checkpoint.path), dropout=0.3)
    config = ListwiseConfig(**options)
    (tmp_path / "work").mkdir()
    start = begin(config, tmp_path / "work")
    stage: Stage[Any] = Listwise(config, start)
    start.model.train()
    batch = next(epoch_batches(stage.examples, 8, seed=0, epoch=0))
    first = stage.step(start.model, batch, lambda loss: loss.backward())
    assert float(first["ranking"]) == pytest.approx(np.log(3), abs=1e-4)


# Stage 3 --------------------------------------------------------------------------------------


@given(st.floats(0, 1, exclude_max=True), st.lists(st.sampled_from(THINGS), max_size=4))
def test_the_privileged_prompt_adds_the_marked_query_somewhere(
    place: float, parts: list[str]
) -> None:
    fields = ["title | more", "", PART.join(parts), "past"]
    prompt = f" {SEP} ".join(fields)
    found = posterior_prompt(prompt, "the answer", place).split(f" {SEP} ")
    assert len(found) == 4
    split = [[part for part in field.split(PART) if part] for field in found]
    answer = f"{MASK} the answer{MASK}"
    assert sum(answer in field for field in split) == 1
    for field, before in zip(split, fields, strict=True):
        assert [part for part in field if part != answer] == [
            part for part in before.split(PART) if part
        ]


def test_every_place_of_the_privileged_prompt_is_reached() -> None:
    prompt = f"a | b {SEP}  {SEP} c {SEP} "
    places = {posterior_prompt(prompt, "q", at / 100) for at in range(100)}
    assert len(places) == 3 + 1 + 2 + 1


def riddles(count: int, *, seed: int, told: bool) -> list[Trigger]:
    """A word of the text stands for the colour, which nobody has taught the model; where `told`,
    the answer stands somewhere in the evidence, as in the teacher's prompt."""
    random = Random(seed)
    found = []
    for number in range(count):
        at, thing = random.randrange(len(COLOURS)), random.choice(THINGS)
        target = f"{COLOURS[at]} {thing}"
        fields: dict[str, Any] = {"text": f"{CHATTER[at]} {thing}"}
        if told:
            where = random.choice(("text", "summary", "anchors", "history"))
            fields |= {
                "text": {"text": f"{thing}{PART}{target}"},
                "summary": {"summary": target, "text": thing},
                "anchors": {"anchors": (target,), "text": thing},
                "history": {"history": (target,), "text": thing},
            }[where]
        found.append(
            Trigger(
                trigger_id=f"r{number}", kind="click", ts=float(number), video_id="v",
                target=target, **fields,
            )
        )  # fmt: skip
    return found


def test_piopd_teaches_the_student_what_only_its_teacher_was_told(
    tmp_path: Path, toy_checkpoint: Checkpoint
) -> None:
    """From the distillation alone: with no weight on the clicked query itself."""
    from onebar.training.run import begin

    write_dataset(tmp_path / "dataset", {"train": riddles(1500, seed=1, told=True)})
    copying = train_sft(
        SFTConfig(
            **run_options(
                tmp_path, "copying", init=str(toy_checkpoint.path), steps=150, batch_size=32,
                learning_rate=2e-3,
            )
        )
    )  # fmt: skip
    held = riddles(200, seed=3, told=False)
    write_dataset(tmp_path / "riddles", {"train": riddles(1500, seed=2, told=False), "valid": held})
    options = run_options(
        tmp_path, "piopd", init=str(copying), steps=120, batch_size=32, learning_rate=2e-3
    ) | {"dataset": tmp_path / "riddles"}
    config = PIOPDConfig(**options, sft_weight=0.0, r_drop_weight=0.0, fgm_weight=0.0, dropout=0.0)
    path = train_piopd(config)

    def solved(init: Path) -> float:
        work = tmp_path / f"work-{init.name}"
        work.mkdir()
        start = begin(RunConfig(**{**options, "init": str(init)}), work)
        examples = [Example(build_prompt(t.evidence, start.prompt), t.target) for t in held]
        return teacher_gain(start.model.eval(), start.tokenizer, examples).plain

    assert solved(copying) < 0.4
    assert solved(path) > 0.6


def test_every_term_of_piopd_is_finite_and_the_attack_hurts(
    tmp_path: Path, toy_checkpoint: Checkpoint
) -> None:
    options = run_options(
        tmp_path, "piopd", init=str(toy_checkpoint.path), steps=10, learning_rate=3e-4
    )
    train_piopd(PIOPDConfig(**options, least_gain=-1.0))
    for term in ("sft", "distill", "entropy", "r_drop", "fgm"):
        assert np.isfinite(curve(tmp_path, "piopd", term)).all()
    # A changed embedding costs more than the plain one: the perturbation is an attack.
    assert sum(curve(tmp_path, "piopd", "fgm")) > sum(curve(tmp_path, "piopd", "sft"))


def test_nothing_is_distilled_from_a_teacher_that_knows_no_more(
    tmp_path: Path, toy_checkpoint: Checkpoint
) -> None:
    """Dropout is the student's noise, not the teacher's knowledge."""
    from onebar.training.run import begin

    options = run_options(tmp_path, "x", init=str(toy_checkpoint.path), dropout=0.3)
    config = PIOPDConfig(**options, privileged=False)
    (tmp_path / "work").mkdir()
    start = begin(config, tmp_path / "work")
    stage: Stage[Any] = PIOPD(config, start)
    start.model.train()
    metrics = stage.step(
        start.model,
        next(epoch_batches(stage.examples, 8, seed=0, epoch=0)),
        lambda loss: loss.backward(),
    )
    assert float(metrics["distill"]) == pytest.approx(0.0, abs=1e-5)
    assert float(metrics["r_drop"]) > 1e-3  # the two passes of R-Drop do have dropout
    assert start.model.training


def test_piopd_begins_only_where_its_teacher_gains(
    tmp_path: Path, toy_checkpoint: Checkpoint
) -> None:
    from onebar.training.run import begin

    # What the click was can be told from the evidence here: seeing it adds nothing.
    options = run_options(tmp_path, "x", init=str(toy_checkpoint.path))
    with pytest.raises(TeacherGainsNothingError, match="gain of"):
        train_piopd(PIOPDConfig(**options))
    assert not (tmp_path / "x").exists()
    # Where the evidence says nothing and the prompt the click, a model that can copy gains.
    (tmp_path / "work").mkdir()
    start = begin(PIOPDConfig(**options), tmp_path / "work")
    blind = [
        Example(f"something {SEP} {SEP} {SEP} ", f"{colour} {thing}")
        for colour in COLOURS
        for thing in THINGS
    ]
    gain = teacher_gain(start.model.eval(), start.tokenizer, blind)
    assert gain.clicks == len(blind)
    assert gain.plain <= gain.shown <= 1
    assert gain.least <= gain.gain


def test_a_term_of_weight_zero_is_left_out(tmp_path: Path, toy_checkpoint: Checkpoint) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = run_options(tmp_path, "bare", init=str(toy_checkpoint.path), steps=2)
    train_piopd(
        PIOPDConfig(
            **options,
            least_gain=-1.0,
            forward_weight=0.0,
            reverse_weight=0.0,
            entropy_weight=0.0,
            r_drop_weight=0.0,
            fgm_weight=0.0,
        )
    )
    events = EventAccumulator(str(tmp_path / "curves" / "bare"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        *("loss", "sft", "learning_rate", "gradient_norm"),
        *("valid/loss", "valid/sft"),
    }


# Validation -----------------------------------------------------------------------------------


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations as close together as a test can use."""
    monkeypatch.setattr("onebar.training.loop.LEAST_STEPS", 1)


@pytest.mark.usefixtures("often")
def test_a_run_that_learns_by_heart_stops_early_and_keeps_the_best(tmp_path: Path) -> None:
    known = [t for t in toy_triggers(40, seed=1) if t.kind == "click"][:24]
    texts = [text for t in toy_triggers(300, seed=2) for text in (t.text, t.target)]
    write_dataset(
        tmp_path / "dataset", {"train": known, "valid": list(toy_triggers(100, seed=3))}, texts
    )
    options = run_options(
        tmp_path, "short", steps=3000, batch_size=24, validations=300, validation_batches=4
    )
    path = train_sft(SFTConfig(**options, patience=4))
    card = open_checkpoint(path).card.training
    found = card["validation"]
    assert card["steps"] < 3000
    assert found["best_step"] == card["steps"] - 4 * 10
    assert found["best"] < found["before"]
    assert found["best"] < found["last"]
    points = curve(tmp_path, "short", "valid/loss")
    assert len(points) == 1 + card["steps"] // 10
    assert min(points[1:]) == pytest.approx(found["best"], abs=1e-4)
    # What was written are the weights of that step.
    config = SFTConfig(**{**options, "init": str(path)})
    (tmp_path / "work").mkdir()
    start = begin(config, tmp_path / "work")
    stage = SFT(config, start)
    again = validate(
        stage.step, start.model, stage.held_out, size=24, seed=0,
        accelerator=make_accelerator(config),
    )  # fmt: skip
    assert again["loss"] == pytest.approx(found["best"], abs=1e-3)
    last = train_sft(SFTConfig(**{**options, "out": tmp_path / "last"}, patience=4, keep="last"))
    assert open_checkpoint(last).name != open_checkpoint(path).name


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("what", ["_step", "_validate"])
def test_an_interrupted_run_remembers_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def go(name: str) -> Path:
        # So fast that it gets worse after the first steps.
        changes = {"validations": 6, "learning_rate": 0.5, "patience": None}
        return train_sft(SFTConfig(**run_options(tmp_path, name, **changes)))

    whole = go("whole")
    interrupted_at(4, go, "broken", monkeypatch, what)
    resumed = go("broken")
    found = [open_checkpoint(path).card.training["validation"] for path in (whole, resumed)]
    assert found[0] == found[1]
    assert found[0]["best_step"] < 4
    assert curve(tmp_path, "broken", "valid/loss") == curve(tmp_path, "whole", "valid/loss")
    ours = weights_of(resumed)
    for name, tensor in weights_of(whole).items():
        torch.testing.assert_close(ours[name], tensor, atol=1e-6, rtol=1e-5)


def test_what_is_kept_back_is_not_learnt_from(tmp_path: Path) -> None:
    """And a validation is the same whenever it is asked for."""
    config = PretrainConfig(**run_options(tmp_path, "x"))
    (tmp_path / "work").mkdir()
    start = begin(config, tmp_path / "work")
    known = set(start.dataset.texts())
    kept = unseen_texts(start.dataset)
    assert kept
    assert not known & set(kept)
    stage = Pretrain(config, start)
    accelerator = make_accelerator(config)
    values = [
        validate(stage.step, start.model, stage.held_out, size=8, seed=0, accelerator=accelerator)
        for _ in range(2)
    ]
    assert values[0] == values[1]


# Several processes ----------------------------------------------------------------------------

SCRIPT = """
import json
import os
import sys
from pathlib import Path
from onebar.training import batches
from onebar.training.recipe import train

build = batches.Pairs.batch

def noted(self, rows, **draws):
    with open(sys.argv[1] + ".rows" + os.environ["RANK"], "a") as file:
        print(json.dumps([len(self), rows.tolist()]), file=file)
    return build(self, rows, **draws)

batches.Pairs.batch = noted
train("sft", sys.argv[2], sys.argv[1], init=sys.argv[3], steps=6, batch_size=8, threads=1,
      device="cpu", progress=False, log_every=1, learning_rate=1e-3)
"""


@pytest.mark.timeout(600)
def test_two_processes_train_as_one_with_twice_the_batch(
    tmp_path: Path, toy_checkpoint: Checkpoint
) -> None:
    """torchrun, two CPU processes: each builds half of every step's examples, and all is as if one
    had read them together. The targets are of one length, so means of means are means."""
    tokenizer = toy_checkpoint.tokenizer()
    clicks = [trigger for trigger in toy_triggers(400, seed=5) if trigger.kind == "click"]
    lengths = [len(ids) for ids in tokenizer.encode_targets([click.target for click in clicks])]
    usual = max(set(lengths), key=lengths.count)
    triggers = [click for click, length in zip(clicks, lengths, strict=True) if length == usual]
    assert len(triggers) > 100
    write_dataset(tmp_path / "dataset", {"train": triggers[40:], "valid": triggers[:40]})
    init = str(toy_checkpoint.path)
    one = run_options(tmp_path, "one", init=init, batch_size=16, learning_rate=1e-3)
    train_sft(SFTConfig(**one))

    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    two = str(tmp_path / "two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), two, str(tmp_path / "dataset"), init],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    card = open_checkpoint(two).card.training
    assert card["steps"] == 6
    assert card["processes"] == 2
    for tag in ("loss", "valid/loss"):
        assert curve(tmp_path, "two", tag) == pytest.approx(curve(tmp_path, "one", tag), rel=1e-3)
    begun, first, second = (weights_of(path) for path in (toy_checkpoint.path, one["out"], two))
    apart = sum(float((first[n] - second[n]).square().sum()) for n in begun) ** 0.5
    moved = sum(float((first[n] - begun[n]).square().sum()) for n in begun) ** 0.5
    assert apart < 0.02 * moved
    noted = [
        [rows for of, rows in map(json.loads, lines) if of == len(triggers) - 40]
        for lines in (Path(f"{two}.rows{rank}").read_text().splitlines() for rank in (0, 1))
    ]
    assert [len(rows) for rows in noted] == [6, 6]
    for ours, theirs in zip(*noted, strict=True):
        assert len(ours) == len(theirs) == 8
        assert not set(ours) & set(theirs)
