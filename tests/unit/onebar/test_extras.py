"""What is said where an extra lacks: a command that installs it from where this OneBar came."""

from __future__ import annotations

import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from onebar.cli import main as cli
from onebar.process.extras import FROM_A_CHECKOUT, command, how_to_install

ROOT = Path(__file__).parents[3]
WHEEL = {"url": "file:///srv/w/onebar-1-py3-none-any.whl", "archive_info": {"hash": "sha256=00"}}


def checkout(path: Path, **info: bool) -> dict[str, Any]:
    return {"url": path.as_uri(), "dir_info": info}


def test_from_a_checkout(tmp_path: Path) -> None:
    place = tmp_path / "it's a place"
    place.mkdir()
    assert command("train", checkout(place)) == FROM_A_CHECKOUT.format(extra="train")  # it is gone
    (place / "pyproject.toml").touch()
    assert shlex.split(command("train", checkout(place))) == ["pip", "install", f"{place}[train]"]
    editable = shlex.split(command("train", checkout(place, editable=True)))
    assert editable == ["pip", "install", "-e", f"{place}[train]"]


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        (WHEEL, "file:///srv/w/onebar-1-py3-none-any.whl"),
        (
            {"url": "https://x.example/o.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "git+https://x.example/o.git@abc",
        ),
    ],
)
def test_from_a_wheel_or_a_repository(origin: dict[str, Any], url: str) -> None:
    *words, told = shlex.split(command("teach", origin))
    assert words == ["pip", "install"]
    requirement = Requirement(told)
    assert (requirement.name, requirement.extras, requirement.url) == ("onebar", {"teach"}, url)


def test_from_who_knows_where() -> None:
    assert command("embed", {}) == "pip install '.[embed]' in a checkout of OneBar"


def test_a_command_that_lacks_a_module_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacks(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'ibis'", name="ibis.backends")

    monkeypatch.setattr(cli, "app", lacks)
    for word, extra in (("dataset", "dataset"), ("train", "train")):
        monkeypatch.setattr(sys, "argv", ["onebar", word])
        with pytest.raises(SystemExit):
            cli.main()
        told = capsys.readouterr().err
        assert told == f"onebar: ibis.backends is not installed: {how_to_install(extra)}\n"
        assert "-e" in told  # a developer's checkout
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*cli.EXTRAS.values(), *cli.WHOLE} <= set(extras["optional-dependencies"])
