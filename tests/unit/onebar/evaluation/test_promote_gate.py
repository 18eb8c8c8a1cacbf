"""`onebar models promote --gate` and `onebar train refresh`, with real checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace
from toy import toy_dataset, toy_triggers
from typer.testing import CliRunner

from onebar.cli.evaluation.accept import slice_of
from onebar.cli.main import app
from onebar.generator.checkpoint import (
    BOOK,
    CLICKS,
    LEXICON,
    OUTPUTS,
    WEIGHTS,
    Checkpoint,
    open_checkpoint,
)
from onebar.generator.registry import Registry
from onebar.learning.clicks import ClicksConfig, train_clicks
from onebar.recommending.grounding import Lexicon
from onebar.recommending.loading import open_taste
from onebar.training.models.export import export_again
from onebar.training.recipe import train
from onebar.triggers import Shown, Trigger, write_dataset
from stream.archive.writer import ArchiveWriter
from stream.events import encode
from stream.simulator import SimulatorConfig, simulate


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout


def replayed(count: int, seed: int) -> list[Trigger]:
    """Toy triggers of which every third click was no tap."""
    found = []
    for number, trigger in enumerate(toy_triggers(count, seed=seed)):
        if trigger.kind == "click" and number % 3 == 0:
            bar = tuple(Shown(item.query, item.position, False) for item in trigger.shown)
            trigger = replace(trigger, kind="shown", target="", shown=bar, preferences=())
        found.append(trigger)
    return found


@pytest.fixture(scope="module")
def registry(toy_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that has learnt the task (`toy_checkpoint`), and one that has hardly begun."""
    work = tmp_path_factory.mktemp("gate")
    data = toy_dataset(work / "data", 200)
    raw = train("sft", data.path, work / "raw", preset="tiny", steps=1, device="cpu", threads=1)
    slice_ = {"train": [], "valid": [], "test": replayed(240, 9)}
    write_dataset(work / "slice", slice_)  # type: ignore[arg-type]
    registry = Registry(work / "models")
    for path in (toy_checkpoint.path, raw):
        registry.add(path)
    return work


def names(registry: Path, toy_checkpoint: Checkpoint) -> tuple[str, str]:
    return toy_checkpoint.name, open_checkpoint(registry / "raw").name


def test_the_worse_is_refused_and_the_better_promoted(
    registry: Path, toy_checkpoint: Checkpoint
) -> None:
    good, raw = names(registry, toy_checkpoint)
    models = Registry(registry / "models", prove=lambda checkpoint: None)
    models.promote(good)
    gate = ("--gate", "--dataset", registry / "slice", "--registry", registry / "models")
    report = registry / "report.json"
    code, told = run("models", "promote", raw, *gate, "--json", "--report", report)
    assert code == 1
    said = json.loads(told)
    assert said["promoted"] is False
    assert said["gate"]["reasons"]
    assert said["gate"] == json.loads(report.read_text())
    assert models.current() == good

    models.promote(raw)
    # The toy's model fills its eight with other colours; the raw one only repeats the title.
    code, told = run(
        "models", "promote", good, *gate, "--max-latency", "99", "--max-grounding", "1"
    )
    assert code == 0, told
    assert "ok  taps" in told
    assert models.current() == good

    code, told = run("models", "promote", good, *gate)
    assert code == 0
    assert "as it was" in told


def test_a_gate_wants_one_slice(registry: Path, toy_checkpoint: Checkpoint) -> None:
    good, _ = names(registry, toy_checkpoint)
    for options in (
        ("--gate",),
        ("--dataset", "x"),
        ("--gate", "--dataset", "x", "--archive", "y"),
    ):
        with pytest.raises(Exception, match="--gate"):
            run("models", "promote", good, "--registry", registry / "models", *options)


def archive_of(path: Path, events: int) -> Path:
    with ArchiveWriter(path) as writer:
        config = SimulatorConfig(events=events, users=40, videos=60, active_videos=30)
        for number, event in enumerate(simulate(config)):
            writer.add_parsed(event.topic, 0, number, event.ts, event, encode(event), "")
    return path


def test_refresh_goes_on_with_the_last_days(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "archive", 6000)
    data = toy_dataset(tmp_path / "data", 60)
    first = train(
        "sft", data.path, tmp_path / "sft", preset="tiny", steps=1, device="cpu", threads=1
    )
    lexicon = Lexicon.of(["red boots"]).content
    init = export_again(
        first, tmp_path / "init", beside={LEXICON: lexicon}, floor=-7.5, outputs=range(280)
    ).path
    out = tmp_path / "fresh"
    models = tmp_path / "models"
    code, told = run(
        *("train", "refresh", archive, "--init", init, "--out", out, "--days", 3),
        *("--steps", 2, "--batch-size", 4, "--device", "cpu", "--threads", 1),
        *("--add", "--registry", models),
    )
    assert code == 0, told
    made = open_checkpoint(out)
    assert made.name == told.strip().splitlines()[-1]
    assert Registry(models).open(made.name).name == made.name
    assert made.card.training["stage"] == "listwise"
    assert made.card.training["parent"] == open_checkpoint(init).name
    assert made.card.training["refreshed"]["days"] == 3
    # What the one before brought is there, and it can still say what that could.
    assert made.need(LEXICON).read_bytes() == lexicon
    assert made.card.generation.floor == -7.5
    before = set(json.loads(open_checkpoint(init).need(OUTPUTS).read_bytes()))
    assert before <= set(json.loads(made.need(OUTPUTS).read_bytes()))
    spans = made.card.training["dataset"]["splits"]
    assert spans["valid"]["end"] - spans["train"]["begin"] <= 3.01 * 86400
    assert not list(tmp_path.glob(".fresh*"))


def test_refresh_renews_what_people_tap(tmp_path: Path, toy_checkpoint: Checkpoint) -> None:
    """From a checkpoint with a click ranker and without float weights, as the shipped one is."""
    archive = archive_of(tmp_path / "archive", 6000)
    data = slice_of(archive, tmp_path / "data", 7, test=0.0, valid=0.9)
    served = export_again(toy_checkpoint.path, tmp_path / "served", weights=False)
    learned = ClicksConfig(
        dataset=data.path, checkpoint=served.path, out=tmp_path / "taps", beam=4, most=200
    )
    init = open_checkpoint(train_clicks(learned))
    assert WEIGHTS not in init.card.files
    options = ("--steps", 1, "--batch-size", 4, "--device", "cpu", "--threads", 1)
    asked = ("train", "refresh", archive, "--init", init.path, "--days", 3, *options)

    code, told = run(*asked, "--out", tmp_path / "fresh", "--most", 200)
    assert code == 0, told
    made = open_checkpoint(tmp_path / "fresh")
    facts = made.card.training
    assert facts["stage"] == "listwise"
    assert facts["refreshed"]["init"] == init.name
    assert facts["clicks"]["former"]["clicks"] == facts["clicks"]["held_out"]["clicks"]
    assert facts["clicks"]["settings_of_run"]["beam"] == 4
    old, new = open_taste(init).book, open_taste(made).book
    assert old is not None
    assert new is not None
    assert len(new) > len(old)

    code, told = run(*asked, "--out", tmp_path / "half", "--no-clicks")
    assert code == 0, told
    kept = open_checkpoint(tmp_path / "half")
    for name in (CLICKS, BOOK):
        assert kept.need(name).read_bytes() == init.need(name).read_bytes()

    # Too few taps in the days: what orders stays, what generates goes on all the same.
    few = ("train", "refresh", archive, "--init", init.path, "--days", 0.3, *options)
    code, told = run(*few, "--out", tmp_path / "few")
    assert code == 0, told
    kept = open_checkpoint(tmp_path / "few")
    assert kept.card.training["stage"] == "listwise"
    assert kept.need(CLICKS).read_bytes() == init.need(CLICKS).read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_refresh_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="say what to go on from"):
        run("train", "refresh", tmp_path, "--out", tmp_path / "x")
