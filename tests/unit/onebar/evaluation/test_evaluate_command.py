"""`onebar evaluate`: what it prints and writes, and what it says of unusable input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from onebar.cli.main import app
from onebar.evaluation.evaluate import evaluation_triggers
from onebar.evaluation.report import report, tables
from onebar.recommending.candidates import REJECT
from onebar.triggers import (
    DatasetCard,
    EmptyDatasetError,
    Kind,
    Trigger,
    write_dataset,
)


def trigger(number: int, kind: Kind = "click") -> Trigger:
    thing = ("red shoes", "garden hose", "yoga mat")[number % 3]
    return Trigger(
        trigger_id=f"t{number}",
        kind=kind,
        ts=float(number),
        video_id=f"v{number}",
        user_id=f"u{number % 11}",
        text=f"look at this {thing}" if kind != "reject" else f"casino bets {thing}",
        anchors=(f"cheap {thing}",) if number % 2 else (),
        target=REJECT if kind == "reject" else f"cheap {thing}",
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluate") / "data"
    train = [trigger(n, "reject" if n % 10 == 0 else "click") for n in range(120)]
    test = [trigger(n, "reject" if n % 10 == 0 else "click") for n in range(200, 240)]
    write_dataset(path, {"train": train, "test": [*test, trigger(300, "shown")]})
    return path


def run(*args: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, args)])


def test_baselines_are_four_rows_as_json_and_in_a_file(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    result = run("--dataset", dataset, "--baselines", "--slices", "--json", "--out", out)
    assert result.exit_code == 0, result.output
    said: dict[str, Any] = json.loads(result.stdout)
    assert said == json.loads(out.read_text())
    assert list(tmp_path.iterdir()) == [out]
    rows = {row["name"]: row for row in said["rows"]}
    assert list(rows) == ["title copy", "anchors", "popularity", "cascade"]
    assert rows["anchors"]["clicks"] == 36
    assert rows["anchors"]["rejects"] == 4
    assert rows["anchors"]["metrics"]["hr@8"][0] == pytest.approx(20 / 36, abs=1e-6)
    assert rows["cascade"]["metrics"]["hr@1"] == [1.0, 1.0, 1.0]
    assert rows["cascade"]["metrics"]["reject_recall"][0] == 1.0
    assert rows["cascade"]["less_first"]["hr@1"][0] == 1.0
    assert rows["title copy"]["metrics"]["reject_precision"] == [None, None, None]
    assert rows["anchors"]["slices"]["no anchors"]["metrics"]["hr@8"][0] == 0.0


def test_people_get_tables(dataset: Path) -> None:
    result = run("--dataset", dataset, "--baselines", "--limit", 20, "--k", 4)
    assert result.exit_code == 0, result.output
    for words in ("HR@4", "ED-HR@4", "reject recall", "cascade", "title copy", "less row 1: HR@4"):
        assert words in result.stdout


def test_a_limit_picks_the_same_triggers_every_time(dataset: Path) -> None:
    from onebar.triggers import open_dataset

    opened = open_dataset(dataset)
    first = evaluation_triggers(opened, "test", 10)
    assert first == evaluation_triggers(opened, "test", 10)
    assert len(first) == 10
    assert [t.ts for t in first] == sorted(t.ts for t in first)
    assert len(evaluation_triggers(opened, "test", 1000)) == 40


def test_an_empty_split_and_one_without_clicks_are_told(tmp_path: Path) -> None:
    opened = write_dataset(
        tmp_path / "d", {"train": [trigger(1)], "test": [trigger(n, "reject") for n in range(3)]}
    )
    with pytest.raises(EmptyDatasetError, match=r"valid split .* neither clicks nor rejects"):
        evaluation_triggers(opened, "valid")
    with pytest.raises(EmptyDatasetError, match="no clicks, only 3 rejects"):
        evaluation_triggers(opened, "test")


def test_nothing_to_evaluate_is_a_usage_error(dataset: Path, tmp_path: Path) -> None:
    assert run("--dataset", dataset).exit_code == 2
    no_place = run("--dataset", dataset, "--baselines", "--out", tmp_path / "no" / "x.json")
    assert no_place.exit_code == 2
    assert "no directory" in no_place.output


def test_a_directory_that_is_no_dataset_is_told(tmp_path: Path) -> None:
    result = run("--dataset", tmp_path, "--baselines")
    assert result.exit_code == 1
    assert "is no dataset" in str(result.exception)


def test_relevance_comes_from_the_truth_of_a_simulated_log(dataset: Path, tmp_path: Path) -> None:
    from stream.simulator import SimulatorConfig
    from stream.simulator.truth import UserTruth, VideoTruth, WorldTruth, encode_record

    video = VideoTruth(
        video_id="v201",
        kind="product",
        category="Clothing",
        product="nothing of this world",
        attributes=("", ""),
        use="",
        brand=None,
        sensitive="gambling",
        misleading=False,
        told_by=(),
    )
    user = UserTruth("u1", 0.0, 0, 0.0, False, ())
    path = tmp_path / "log.truth.jsonl"
    records = [encode_record(r) for r in (WorldTruth(SimulatorConfig()), video, user)]
    path.write_bytes(b"".join(line.rstrip(b"\n") + b"\n" for line in records))
    result = run("--dataset", dataset, "--baselines", "--json", "--truth", path)
    assert result.exit_code == 0, result.output
    anchors = json.loads(result.stdout)["rows"][1]["metrics"]
    assert anchors["relevance@8"] == [0.0, 0.0, 0.0]  # only v201 is known, and it is sensitive


def test_a_report_of_one_row_has_no_difference(dataset: Path) -> None:
    from onebar.evaluation.baselines.simple import AnchorsAlone
    from onebar.evaluation.outcomes import measure

    said = report([measure(AnchorsAlone(), [trigger(n) for n in range(5)])])
    assert "less_first" not in said[0]
    assert len(tables(said)) == 2


def test_a_shadow_run_says_what_goes_together(dataset: Path) -> None:
    assert "two checkpoints" in run("--dataset", dataset, "--shadow", "one").output
    for option in (("--baselines",), ("--slices",), ("--truth", "x"), ("--embedder", "x")):
        refused = run("--dataset", dataset, "--shadow", "old", "new", *option)
        assert refused.exit_code == 2
        assert f"{option[0]} doesn't go with --shadow" in refused.output


def test_a_split_that_lacks_impressions_without_a_tap_tells_no_rates(tmp_path: Path) -> None:
    path = tmp_path / "thinned"
    rows = [trigger(n, "shown" if n % 2 else "click") for n in range(20)]
    card = DatasetCard(created_at="now", settings={"shown_share": 0.25})
    write_dataset(path, {"train": rows, "test": rows}, card=card)
    result = run("--dataset", path, "--shadow", "old", "new", "--split", "train")
    assert result.exit_code == 1
    assert "keeps 25% of the impressions without a tap" in str(result.exception)
