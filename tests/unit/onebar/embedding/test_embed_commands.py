"""`onebar embed`, from an archive to a dataset with neighbours, on a small simulated log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from onebar.cli.main import app
from onebar.embedding.encoder import read_card
from onebar.embedding.relations import open_relations
from onebar.embedding.relevance import relevance_of
from onebar.triggers import SPLITS, open_dataset
from stream.archive.writer import archive_log
from stream.logs.files import EventLog
from stream.simulator import SimulatorConfig, write_log


def onebar(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """archive, dataset, relations, embedders."""
    home = tmp_path_factory.mktemp("embed")
    # Few people watch one video of so small a world: what one of them asked counts.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONEBAR_SHOWABLE_USERS", "1")
        yield make(home)


def make(home: Path) -> Path:
    write_log(SimulatorConfig(seed=5, events=6_000), home / "log.jsonl")
    archive_log(EventLog(home / "log.jsonl"), home / "archive")
    onebar("dataset", home / "archive", "--out", home / "dataset")
    found = onebar(
        "embed", "relations", home / "archive", "--dataset", home / "dataset",
        "--out", home / "relations", "--json",
    )  # fmt: skip
    assert set(json.loads(found)["counts"]) == {"q2v", "v2q", "q2q"}
    told = onebar(
        "embed", "train", home / "relations", "--out", home / "embedders", "--steps", 60,
        "--batch-size", 64, "--dim", 32, "--device", "cpu", "--threads", 1,
    )  # fmt: skip
    assert told.strip().endswith(str(home / "embedders" / "all"))
    return home


def test_relations_end_where_the_test_part_begins(made: Path) -> None:
    end = open_dataset(made / "dataset").card.splits["train"]["end"]
    assert open_relations(made / "relations").card.until == end


def test_cold_videos_have_anchors_of_their_neighbours(made: Path) -> None:
    out = onebar(
        "embed", "evaluate", made / "dataset", "--embedder", made / "embedders" / "q2v",
        "--embedder", made / "embedders" / "all", "--threshold", 0.3, "--json",
    )  # fmt: skip
    reports = json.loads(out)
    names = [read_card(made / "embedders" / stage) for stage in ("q2v", "all")]
    assert [report["embedder"] for report in reports] == [card.name for card in names if card]
    rows: list[dict[str, Any]] = reports[-1]["anchors"]
    found = {(row["anchors"], row["slice"]): row for row in rows}
    assert found["own", "cold video"]["covered"] == 0.0
    assert found["near", "cold video"]["covered"] == 1.0
    assert found["log", "cold video"]["covered"] == 1.0
    assert found["near + log", "all"]["hit_rate"] > found["near", "all"]["hit_rate"]
    assert found["own + near + log", "all"]["hit_rate"] >= found["own", "all"]["hit_rate"]
    assert {"head video", "tail video", "head target", "tail target"} <= {at for _, at in found}
    assert found["own + near", "all"]["hit_rate"] >= found["own", "all"]["hit_rate"] > 0
    assert found["near, by voices", "all"]["covered"] == found["near", "all"]["covered"]
    assert 0 < reports[-1]["histories"]["terms"]["shared"] < 1
    embedder = made / "embedders" / "q2v"
    shown = onebar("embed", "evaluate", made / "dataset", "--embedder", embedder)
    assert "voices" in shown
    without = onebar("embed", "evaluate", made / "dataset", "--embedder", embedder, "--queries", 0)
    assert "log" not in without
    assert "terms" in shown


def test_calibration_is_kept_and_used(made: Path) -> None:
    embedder = made / "embedders" / "all"
    before = read_card(embedder)
    found = json.loads(onebar("embed", "calibrate", made / "dataset", "--embedder", embedder,
                              "--save", "--json"))  # fmt: skip
    rates = {threshold: row["hit_rate"] for threshold, row in found["by_threshold"]}
    chosen = found["threshold"]
    assert rates[chosen] >= 0.98 * max(rates.values())
    card = read_card(embedder)
    assert card is not None
    assert before is not None
    assert (card.threshold, card.name) == (chosen, before.name)
    scores = {threshold: row["f1"] for threshold, row in found["history_by_threshold"]}
    assert scores[found["history_threshold"]] == max(scores.values()) > 0
    assert card.history_threshold == found["history_threshold"]
    shown = onebar("embed", "calibrate", made / "dataset", "--embedder", embedder)
    assert shown.count("take this one") == 2
    onebar("embed", "dataset", made / "dataset", "--embedder", embedder, "--out", made / "near")
    near, plain = open_dataset(made / "near"), open_dataset(made / "dataset")
    assert near.card.source["embedder"]["neighbors"]["threshold"] == chosen
    assert near.card.neighbors
    assert not plain.card.neighbors
    assert near.embedder is not None
    assert read_card(near.embedder) == card
    relevance = relevance_of(embedder)
    for split in SPLITS:
        pairs = list(zip(near.read(split), plain.read(split), strict=True))
        assert near.size(split) == len(pairs)
        for more, less in pairs:
            assert more.anchors[: len(less.anchors)] == less.anchors
            assert len(more.anchors) <= 8
            assert more.recent == less.recent
            kept = relevance(more.recent, more.video_text, more.anchors)
            touching = [query for query, yes in zip(more.recent, kept, strict=True) if yes]
            assert list(more.history) == touching[:3]
    many = [sum(len(t.anchors) for t in found.read("test")) for found in (plain, near)]
    assert many[0] < many[1]

    onebar("embed", "dataset", made / "dataset", "--embedder", embedder, "--no-history",
           "--out", made / "only-near")  # fmt: skip
    only = open_dataset(made / "only-near")
    assert only.embedder is None
    kept_h = [trigger.history for trigger in only.read("test")]
    assert kept_h == [trigger.history for trigger in plain.read("test")]


def test_wrong_uses_are_told(made: Path, tmp_path: Path) -> None:
    def refused(*words: object) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code != 0
        return f"{done.output} {done.exception}"

    both = ("--dataset", made / "dataset", "--until", "2026-01-01")
    relations = ("embed", "relations", made / "archive", "--out", tmp_path / "r")
    assert "not both" in refused(*relations, *both)
    assert "no dataset" in refused(*relations, "--dataset", tmp_path)
    assert "holds no relations" in refused("embed", "train", tmp_path, "--out", tmp_path / "e")
    evaluate = ("embed", "evaluate", made / "dataset", "--embedder", made / "embedders" / "all")
    assert "less than or equal to 1" in refused(*evaluate, "--threshold", 1.5)
    dataset = ("embed", "dataset", made / "dataset", "--out", tmp_path / "d", "--embedder")
    assert "calibrate" in refused(*dataset, made / "embedders" / "q2v")
    nothing = refused(*dataset, made / "embedders" / "all", "--no-history", "--no-neighbors")
    assert "nothing is left" in nothing
    assert not (tmp_path / "d").exists()
    calibrate = ("embed", "calibrate", made / "dataset", "--embedder")
    assert "can't be" in refused(*calibrate, tmp_path)
