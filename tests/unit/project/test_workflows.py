"""The workflows of GitHub: what they name is there, and nobody else can change what they run."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import onebar

ROOT = Path(__file__).resolve().parents[3]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def read(path: Path) -> dict[Any, Any]:
    document: dict[Any, Any] = yaml.safe_load(path.read_text())
    return document


CI, RELEASE = (read(ROOT / ".github" / "workflows" / name) for name in ("ci.yml", "release.yml"))


def steps(document: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    for job in document["jobs"].values():
        yield from job.get("steps", ())


def scripts(path: Path) -> str:
    return "\n".join(step["run"] for step in steps(read(path)) if "run" in step)


def test_they_are_what_the_schema_says() -> None:
    program = [sys.executable, "-m", "check_jsonschema"]
    command = [*program, "--builtin-schema", "vendor.github-workflows", *map(str, FILES)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_actions_of_others_are_pinned_to_a_commit(path: Path) -> None:
    used = re.findall(r"uses: (.+)", path.read_text())
    assert used
    for action in used:
        if action.startswith("./"):
            assert (ROOT / action).is_file()
        else:
            assert PINNED.fullmatch(action), action


def test_one_action_has_one_release() -> None:
    used = {action for path in FILES for action in PINNED.findall(path.read_text())}
    assert len({action.partition("@")[0] for action in used}) == len(used)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_they_may_only_read_unless_a_job_says_more(path: Path) -> None:
    document = read(path)
    assert document["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in path.read_text()
    assert "secrets." not in path.read_text()
    for step in steps(document):
        if "actions/checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False
    # What somebody else named (a branch, a title) is a variable to a script, never a part of it.
    assert "${{" not in scripts(path)


def test_what_scripts_name_is_there() -> None:
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, re.MULTILINE))
    arguments = set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    said = "\n".join(map(scripts, FILES))
    targets = set(re.findall(r"\bmake ([a-z-]+)", said))
    assert {"package", "helm-check"} <= targets <= made
    paths = set(re.findall(r"(?<![\w./$])(?:\.ci|deploy|docs|tests)/[\w./-]+", said))
    assert {".ci/run", "deploy/Dockerfile", "deploy/compose.gpu.yml"} <= paths
    assert all((ROOT / path).is_file() for path in paths)
    assert set(re.findall(r"--build-arg (\w+)=", said)) == {"WHEEL"} <= arguments
    images = RELEASE["jobs"]["images"]["strategy"]["matrix"]["include"]
    assert {image["target"] for image in images} == {"serve", "train"} <= stages


def test_a_release_is_tested_and_says_where_it_was_made() -> None:
    jobs = RELEASE["jobs"]
    assert RELEASE[True] == {"push": {"tags": ["v*"]}}  # YAML reads `on` as true
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in CI[True]
    assert jobs["package"]["needs"] == "test"
    assert jobs["images"]["needs"] == "package"
    assert jobs["publish"]["needs"] == ["package", "images"]
    attested = [step["with"] for step in steps(RELEASE) if "attest" in step.get("uses", "")]
    assert {"subject-path": "dist/*"} in attested
    assert any(
        step.get("subject-path") == "dist/*.whl" and "sbom-path" in step for step in attested
    )
    assert any("subject-digest" in given for given in attested)
    for name in ("package", "images"):
        assert jobs[name]["permissions"]["attestations"] == "write"
        assert jobs[name]["permissions"]["id-token"] == "write"
    said = scripts(ROOT / ".github" / "workflows" / "release.yml")
    assert "--provenance mode=max --sbom true" in said
    assert 'make package ARGS="$GITHUB_REF_NAME"' in said


@pytest.mark.parametrize("tag", ["v9.9.9", onebar.__version__])
def test_another_tag_than_the_versions_is_no_release(tag: str) -> None:
    done = subprocess.run(
        [ROOT / "deploy" / "package.sh", tag],
        env={"VENV": str(Path(sys.executable).parents[1]), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"tag v{onebar.__version__}" in done.stderr
