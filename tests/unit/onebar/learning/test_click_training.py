"""`onebar train clicks`: what people tap is learned, kept in a checkpoint, and served from it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import msgspec
import pytest
from recommend_world import Cache, Store
from typer.testing import CliRunner

from onebar.cli.main import app
from onebar.evaluation.comparing.acceptance import Bounds, accept
from onebar.evaluation.predict import EnginePredictor
from onebar.generator.checkpoint import BOOK, CLICKS, Checkpoint, open_checkpoint
from onebar.generator.registry import Registry
from onebar.learning import clicks
from onebar.learning.clicks import ClicksConfig, FewTapsError, train_clicks
from onebar.learning.grow import Grown
from onebar.recommending.clicks import ClickRanker
from onebar.recommending.live import LiveModel
from onebar.recommending.loading import CheckpointUnusableError, open_taste
from onebar.recommending.model import Model
from onebar.records import Features, HistoryEntry, QueryResult, VideoText
from onebar.settings import Settings
from onebar.triggers import DatasetCard, Shown, Trigger, TriggerDataset, write_dataset

THINGS = ("lamp", "tent", "shoes", "kettle", "sofa", "drill")
WAYS = ("cheap", "best")


def impression(number: int, *, tapped: bool = True) -> Trigger:
    """A bar with one thing put in two ways; this user always puts things in one of them."""
    random = Random(number)
    thing, mine = random.choice(THINGS), WAYS[number % 2]
    order = random.sample(WAYS, 2)
    target = f"{mine} {thing}" if tapped else ""
    others = random.sample([one for one in THINGS if one != thing], 3)
    return Trigger(
        trigger_id=f"t{number}",
        kind="click" if tapped else "shown",
        ts=float(number),
        video_id=f"v{number}",
        user_id=f"u{number}",
        text=f"a {thing} to buy",
        recent=tuple(f"{mine} {other}" for other in others),
        target=target,
        shown=tuple(
            Shown(f"{way} {thing}", at, f"{way} {thing}" == target) for at, way in enumerate(order)
        ),
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> TriggerDataset:
    valid = [impression(n, tapped=n % 3 > 0) for n in range(240)]
    train = [impression(n) for n in range(1000, 1040)]
    test = [impression(n) for n in range(2000, 2040)]
    card = DatasetCard(created_at="now", settings={"policy": {"showable_users": 2}})
    splits = {"train": train, "valid": valid, "test": test}
    return write_dataset(tmp_path_factory.mktemp("taps") / "data", splits, card=card)  # type: ignore[arg-type]


def config(dataset: TriggerDataset, checkpoint: Checkpoint, out: Path, **more: int) -> ClicksConfig:
    return ClicksConfig(
        dataset=dataset.path, checkpoint=checkpoint.path, out=out, beam=4, least_rows=5, **more
    )


def test_a_habit_is_learned_and_served_from_the_checkpoint(
    dataset: TriggerDataset, toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    out = tmp_path / "taps"
    options = ("--beam", "4", "--set", "least_rows=5", "--json")
    result = CliRunner().invoke(
        app,
        ["train", "clicks", str(dataset.path), "--init", str(toy_checkpoint.path), "--out",
         str(out), *options],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    made = open_checkpoint(out)
    assert said["name"] == made.name != toy_checkpoint.name
    facts = made.card.training["clicks"]
    assert (facts["impressions"], facts["taps"]) == (240, 160)
    assert facts["held_out"]["taps"] > facts["held_out"]["before taps"]
    assert {CLICKS, BOOK} < set(made.card.files)

    taste = open_taste(made)
    assert isinstance(taste.scorer, ClickRanker)
    assert taste.beam == 4
    asked = {(t.user_id, q) for t in dataset.read("train") for q in (t.target, *t.recent)}
    users = Counter(query for _, query in asked)
    assert taste.book is not None
    assert len(taste.book) == sum(many >= 2 for many in users.values()) > 0
    assert taste.book.habits.first == {"cheap ", "best "}
    test = list(dataset.read("test"))
    predictor = EnginePredictor(out)
    try:
        found = predictor.predict(test, 8)
    finally:
        predictor.close()
    # Where a bar has both ways to put it, the user's own comes first.
    first = [
        one.queries.index(t.target) < one.queries.index(other)
        for one, t in zip(found, test, strict=True)
        for other in [
            t.target.replace(*WAYS) if WAYS[0] in t.target else t.target.replace(*WAYS[::-1])
        ]
        if {t.target, other} <= set(one.queries)
    ]
    assert len(first) >= 10
    assert sum(first) >= 0.9 * len(first)
    # And one who puts all in a way that this thing was never put in sees it put so.
    with Model(made) as model:
        for way, other in (WAYS, WAYS[::-1]):
            mine = [f"{way} {thing}" for thing in ("lamp", "sofa", "drill")]
            texts = [one.text for one in model.recommend("a kayak to buy", history=mine)]
            assert f"{way} kayak" in texts
            assert f"{other} kayak" not in texts[: texts.index(f"{way} kayak")]
    # It is a checkpoint like any other: the registry takes it.
    registry = Registry(tmp_path / "registry")
    registry.add(out)
    assert registry.open(made.name).name == made.name


@pytest.fixture(scope="module")
def learned(
    dataset: TriggerDataset, toy_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory
) -> Checkpoint:
    """The toy's checkpoint with a click ranker."""
    out = tmp_path_factory.mktemp("learned") / "taps"
    return open_checkpoint(train_clicks(config(dataset, toy_checkpoint, out)))


def test_the_gate_and_the_shadow_compare_with_the_ranker_on(
    learned: Checkpoint, toy_checkpoint: Checkpoint
) -> None:
    """The weights are the same: whatever differs is the ranker's."""
    seen = [impression(n, tapped=n % 3 > 0) for n in range(3000, 3120)]
    # The toy's words are of six things; the book's queries have others.
    bounds = Bounds(latency=99.0, grounding=1.0)
    plain, ranked = EnginePredictor(toy_checkpoint.path), EnginePredictor(learned.path)
    try:
        found = accept(plain, ranked, seen, bounds=bounds)
        back = accept(ranked, plain, seen, bounds=bounds)
    finally:
        plain.close()
        ranked.close()
    assert found.accepted, found.reasons
    assert found.shadow.other_list > 0.5
    assert found.shadow.differences["hr@8"].low > 0
    assert [reason.partition(":")[0] for reason in back.reasons] == ["taps"]


async def test_the_ranker_goes_along_through_the_registry_and_a_live_swap(
    learned: Checkpoint, toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "models")
    for path in (toy_checkpoint.path, learned.path):
        registry.add(path)
    kept = registry.open(learned.name)
    assert {CLICKS, BOOK} < set(kept.card.files)
    store = Store()
    store.videos["kayak"] = Features(VideoText(title="a kayak to buy"))
    store.history["thrifty"] = tuple(
        HistoryEntry(f"cheap {thing}", 9.0 - at)
        for at, thing in enumerate(("lamp", "sofa", "tent"))
    )
    settings = Settings(registry=registry.path, engine_workers=1)

    async def asked() -> tuple[str, list[str]]:
        recommender = live.recommender
        assert recommender is not None
        [answer] = await recommender.recommend([("kayak", "thrifty")])
        assert isinstance(answer, QueryResult), answer
        return answer.model, [query.text for query in answer.queries]

    registry.promote(toy_checkpoint.name)
    live = LiveModel(settings, store, Cache())
    await live.open()
    try:
        before = await asked()
        assert not store.counted
        registry.promote(learned.name)
        await live.look()
        after = await asked()
        assert store.counted
        registry.promote(toy_checkpoint.name)
        await live.look()
        assert await asked() == before
    finally:
        await live.close()
    assert (before[0], after[0]) == (toy_checkpoint.name, learned.name)
    assert "cheap kayak" not in before[1]
    assert "cheap kayak" in after[1]


@pytest.mark.parametrize("taps", [0.9, 1.1])
def test_what_was_learned_before_stays_where_it_is_better(
    learned: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taps: float
) -> None:
    """Newer days tell of other things: their queries join the book. `taps` are those that the
    former trees are said to bring."""
    real = clicks.grow

    def grown(*arguments: object, former: object) -> Grown:
        found = real(*arguments, former=former)  # type: ignore[arg-type]
        assert found.facts["former"]["clicks"] == found.facts["held_out"]["clicks"] > 0
        return Grown(found.model, {**found.facts, "former": {"taps": taps}})

    monkeypatch.setattr(clicks, "grow", grown)
    later = [
        msgspec.structs.replace(impression(n, tapped=n % 3 > 0), ts=1e6 + n) for n in range(240)
    ]
    asked = [msgspec.structs.replace(impression(n), recent=("cheap kayak",)) for n in range(40)]
    card = DatasetCard(created_at="now", settings={"policy": {"showable_users": 2}})
    days = write_dataset(tmp_path / "days", {"train": asked, "valid": later}, card=card)  # type: ignore[arg-type]
    before = open_taste(learned)
    options = msgspec.structs.replace(
        config(days, learned, tmp_path / "fresh", rounds=9), go_on=True
    )
    made = open_checkpoint(train_clicks(options))
    after = open_taste(made)
    facts = made.card.training["clicks"]
    assert isinstance(before.scorer, ClickRanker)
    assert isinstance(after.scorer, ClickRanker)
    assert facts["held_out"]["taps"] == 1.0
    assert facts["kept_former"] is (taps > 1.0)
    assert (after.scorer.digest == before.scorer.digest) is facts["kept_former"]
    assert before.book is not None
    assert after.book is not None
    assert len(after.book) > len(before.book)
    assert before.book.count("cheap kayak") == 0
    assert after.book.count("cheap kayak") == 40
    assert after.book.habits.first >= before.book.habits.first


def test_an_interrupted_run_goes_on(
    dataset: TriggerDataset,
    toy_checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []
    real = clicks.rows_of

    def counted(*arguments: object, first: int = 0) -> object:
        if len(made) == 2:
            made.append(-1)
            raise KeyboardInterrupt
        made.append(first)
        return real(*arguments, first=first)  # type: ignore[arg-type]

    monkeypatch.setattr(clicks, "CHUNK", 60)
    monkeypatch.setattr(clicks, "rows_of", counted)
    options = config(dataset, toy_checkpoint, tmp_path / "taps")
    with pytest.raises(KeyboardInterrupt):
        train_clicks(options)
    assert not options.out.exists()
    train_clicks(options)
    assert made == [0, 60, -1, 120, 180]
    monkeypatch.undo()
    whole = config(dataset, toy_checkpoint, tmp_path / "whole")
    train_clicks(whole)
    one, other = (open_checkpoint(path).card.files for path in (options.out, whole.out))
    assert one == other


def test_too_few_taps_are_refused(toy_checkpoint: Checkpoint, tmp_path: Path) -> None:
    few = write_dataset(tmp_path / "few", {"valid": [impression(n) for n in range(20)]})
    with pytest.raises(FewTapsError, match="20 bars with a tap"):
        train_clicks(config(few, toy_checkpoint, tmp_path / "a"))
    all_tapped = write_dataset(tmp_path / "all", {"valid": [impression(n) for n in range(80)]})
    with pytest.raises(FewTapsError, match="every bar"):
        train_clicks(config(all_tapped, toy_checkpoint, tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_a_damaged_ranker_is_told(
    dataset: TriggerDataset, toy_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    out = train_clicks(config(dataset, toy_checkpoint, tmp_path / "taps", rounds=3))
    (out / CLICKS).write_bytes(b"?" * (out / CLICKS).stat().st_size)
    with pytest.raises(CheckpointUnusableError, match="holds no trees"):
        open_taste(open_checkpoint(out, verify=False))


def test_a_setting_that_there_is_not_is_refused(tmp_path: Path) -> None:
    arguments = ["train", "clicks", "x", "--init", "y", "--out", "z", "--set", "depth=3"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "leaves" in result.output
