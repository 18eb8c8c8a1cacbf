"""`import onebar`: what it offers, what it costs, and that types are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from python_page import PAGE, parts

import onebar

ROOT = Path(__file__).resolve().parents[3]


def test_every_name_of_the_contract_is_there() -> None:
    assert sorted(onebar.__all__) == sorted(set(onebar.__all__))
    for name in onebar.__all__:
        assert getattr(onebar, name) is not None
    assert set(onebar.__all__) <= set(dir(onebar))
    with pytest.raises(AttributeError, match="no attribute 'recomend'"):
        onebar.recomend  # type: ignore[attr-defined]  # noqa: B018


def test_all_errors_of_the_contract_have_one_root() -> None:
    errors = [getattr(onebar, name) for name in onebar.__all__ if name.endswith("Error")]
    assert len(errors) > 5
    assert all(issubclass(error, onebar.OneBarError) for error in errors)


def test_importing_takes_next_to_nothing() -> None:
    """Loaded: the module itself and nothing that takes time. The fastest of five runs counts."""
    code = (
        "import sys, time; before = set(sys.modules); begun = time.perf_counter(); import onebar; "
        "took = time.perf_counter() - begun; "
        "print(took, *(set(sys.modules) - before - {'onebar', 'typing'}))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
        ).stdout.split()
        for _ in range(5)
    ]
    assert min(float(took) for took, *_ in runs) < 0.05
    assert [name for name in runs[0][1:] if name.split(".")[0] not in sys.stdlib_module_names] == []


def test_what_has_a_type_to_mypy_is_the_contract() -> None:
    """A name is said three times: for programs, for types and for `import *`."""
    import ast

    tree = ast.parse((ROOT / "onebar" / "__init__.py").read_text())
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    typed = {
        alias.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(typed) | {"__version__"} == set(onebar.__all__)
    assert typed == {name: f"onebar.{home}" for name, home in onebar._HOME.items()}


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first part; the part that needs a server is an integration test."""
    library, client = parts()
    assert "Client(" in client
    assert "Client" not in library
    monkeypatch.chdir(tmp_path)
    page: dict[str, object] = {"__name__": "page"}
    exec(compile(library, str(PAGE), "exec"), page)
    assert len(page["queries"]) >= 3  # type: ignore[arg-type]
    assert page["metrics"]["hr@8"].value > 0.2  # type: ignore[index]


# A model in a program -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> onebar.Model:
    return onebar.open_model()


def test_a_model_says_what_serving_would(model: onebar.Model) -> None:
    video = {"title": "Trying waterproof hiking boots #fyp", "caption": "three weeks on wet rock"}
    anchors, history = ["hiking boots"], ["wool socks", "boots for wide feet"]
    evidence = model.evidence(video, anchors=anchors, history=history)
    assert evidence.anchors == ("hiking boots",)
    assert evidence.history == ("boots for wide feet",)
    assert "#" not in evidence.text
    prompt = model.prompt(evidence)
    assert prompt == onebar.build_prompt(evidence, model.card.prompt)
    [raw] = model.generate([prompt])
    assert len(raw) == 8
    shown = model.recommend(video, anchors=anchors, history=history, k=3)
    assert 0 < len(shown) <= 3
    assert shown == model.recommend(
        onebar.VideoText(**video), anchors=anchors, history=history, k=3
    )


def test_nothing_is_shown_under_a_sensitive_video(model: onebar.Model) -> None:
    assert model.recommend({"title": "waterproof hiking boots", "sensitive": True}) == ()


def test_what_is_no_video_is_told(model: onebar.Model) -> None:
    with pytest.raises(onebar.OneBarError, match=r"\$\.title"):
        model.recommend({"title": 7})
    with pytest.raises(ValueError, match="beam size"):
        model.generate(["x"], k=9)
