"""`onebar train phrases`: candidates are ordered by what texts with their queries teach."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from onebar.cli.main import app
from onebar.generator.checkpoint import RANKER, Checkpoint, open_checkpoint
from onebar.learning import pairs
from onebar.learning.pairs import FewPairsError, PhrasesConfig, moments_of, train_phrases
from onebar.learning.written import evenly
from onebar.recommending.loading import open_taste
from onebar.recommending.model import Model
from onebar.recommending.phrases.spans import SHAPELESS
from onebar.triggers import Trigger, TriggerDataset, write_dataset

THINGS = ("感冒", "咳嗽", "头痛", "失眠", "脱发", "近视", "便秘", "过敏")
PLACES = ("百度知道", "搜狗百科", "健康问答")


def asked(number: int) -> Trigger:
    """A page's title that begins with the question which led to it, function word and all."""
    thing, place = THINGS[number % len(THINGS)], PLACES[number % len(PLACES)]
    question = f"{thing}吃什么"
    return Trigger(
        trigger_id=f"t{number}",
        kind="click",
        ts=float(number),
        video_id=f"v{number}",
        text=f"{question} 医生怎么说 {place}{number}",
        target=question,
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TriggerDataset:
    splits = {
        "train": [asked(n) for n in range(260)],
        "valid": [asked(n) for n in range(1000, 1220)],
        "test": [asked(n) for n in range(2000, 2020)],
    }
    path = tmp_path_factory.mktemp("pairs") / "data"
    return write_dataset(path, splits, [t.text for t in splits["train"]])  # type: ignore[arg-type]


def config(
    dataset: TriggerDataset, checkpoint: Checkpoint, out: Path, **more: bool
) -> PhrasesConfig:
    return PhrasesConfig(dataset=dataset.path, checkpoint=checkpoint.path, out=out, beam=2, **more)


def test_what_people_ask_comes_first_from_then_on(
    dataset: TriggerDataset, toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "phrases"
    result = CliRunner().invoke(
        app,
        ["train", "phrases", str(dataset.path), "--init", str(toy_checkpoint.path), "--out",
         str(out), "--beam", "2", "--json"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    made = open_checkpoint(out)
    said = json.loads(result.stdout)
    assert said["name"] == made.name != toy_checkpoint.name
    held = made.card.training["phrases"]["held_out"]
    assert held["hr@1"] > 0.9 > held["before hr@1"]
    assert RANKER in made.card.files
    assert SHAPELESS in open_taste(made).ranker.weights
    with Model(made) as model:
        # A word that no text of the dataset has: what is learned is not a list of things.
        shown = model.recommend("湿疹吃什么 医生怎么说 百度知道77")
    assert shown[0].text == "湿疹吃什么"
    assert not (tmp_path / ".phrases.phrases").exists()


def test_spans_keep_the_shape_that_looks_well_where_it_is_told_so(
    dataset: TriggerDataset, toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    made = open_checkpoint(
        train_phrases(config(dataset, toy_checkpoint, tmp_path / "tidy", any_shape=False))
    )
    assert SHAPELESS not in open_taste(made).ranker.weights
    with Model(made) as model:
        shown = [one.text for one in model.recommend("湿疹吃什么 医生怎么说 百度知道77")]
    assert shown
    assert "湿疹吃什么" not in shown


def test_an_interrupted_run_goes_on_with_what_it_has(
    dataset: TriggerDataset,
    toy_checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = open_checkpoint(train_phrases(config(dataset, toy_checkpoint, tmp_path / "whole")))

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pairs, "learn_sources", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_phrases(config(dataset, toy_checkpoint, tmp_path / "again"))
    with monkeypatch.context() as patched:
        # What was learned and generated is not made again.
        patched.setattr(pairs, "learn_phrases", interrupt)
        patched.setattr(pairs, "load_engine", interrupt)
        again = open_checkpoint(train_phrases(config(dataset, toy_checkpoint, tmp_path / "again")))
    assert again.card.files == whole.card.files


def test_too_few_pairs_are_told(toy_checkpoint: Checkpoint, tmp_path: Path) -> None:
    few = {"train": [asked(n) for n in range(20)], "valid": [asked(n) for n in range(30, 40)]}
    made = write_dataset(tmp_path / "few", {**few, "test": []}, [])  # type: ignore[dict-item]
    with pytest.raises(FewPairsError, match=r"train part .* has 20 .* at least 200"):
        train_phrases(config(made, toy_checkpoint, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_of_many_some_are_taken_from_all_over(dataset: TriggerDataset) -> None:
    moments = moments_of(dataset)
    some = evenly(moments, 10)
    assert [moments.index(one) for one in some] == sorted({moments.index(one) for one in some})
    assert (len(some), some[0]) == (10, moments[0])
    assert moments.index(some[-1]) >= 0.8 * len(moments)
    assert evenly(moments, 10**6) == moments
