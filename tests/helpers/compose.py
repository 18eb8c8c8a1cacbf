"""docker-compose.yml as Docker reads it, as far as our files use its language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


class MissingVariableError(Exception):
    """A `${NAME:?why}` that has no value: Docker starts nothing then."""


def interpolate(value: Any, given: Mapping[str, str]) -> Any:
    """`value` with its `${NAME}`, `${NAME:-else}` and `${NAME:?why}` replaced."""
    if isinstance(value, dict):
        return {key: interpolate(below, given) for key, below in value.items()}
    if isinstance(value, list):
        return [interpolate(below, given) for below in value]
    if not isinstance(value, str):
        return value

    def found(match: re.Match[str]) -> str:
        name, sign, text = match.groups()
        if given.get(name):
            return given[name]
        if sign == "?":
            raise MissingVariableError(f"{name}: {text}")
        return text or ""

    return VARIABLE.sub(found, value)


def read(given: Mapping[str, str], path: Path = FILE) -> dict[str, Any]:
    """The file with these variables. Raises `MissingVariableError`."""
    document: dict[str, Any] = interpolate(yaml.safe_load(path.read_text()), given)
    return document


def wanted(path: Path = FILE) -> set[str]:
    """Variables without which nothing starts."""
    return {name for name, sign, _ in VARIABLE.findall(path.read_text()) if sign == "?"}


def named(path: Path = FILE) -> set[str]:
    """All variables that the file reads."""
    return {name for name, _, _ in VARIABLE.findall(path.read_text())}


def env_file(path: Path) -> dict[str, str]:
    """A file of NAME=value lines."""
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}
