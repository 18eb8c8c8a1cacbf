"""Settings as the variables of a child process."""

from __future__ import annotations

import os

from pydantic import AliasChoices

from onebar.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with `settings` as its `ONEBAR_*` variables, and no others."""
    ours = names()
    env = {name: value for name, value in os.environ.items() if name not in ours}
    return env | variables(settings)


def variables(settings: Settings) -> dict[str, str]:
    """The settings that differ from their defaults, as variables."""
    found = {}
    defaults = Settings.model_construct()
    for name in Settings.model_fields:
        value = getattr(settings, name)
        if value != getattr(defaults, name):
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            found[f"ONEBAR_{name.upper()}"] = text
    return found


def names() -> set[str]:
    """All that a setting is read from, old names too."""
    found = {f"ONEBAR_{name.upper()}" for name in Settings.model_fields}
    for field in Settings.model_fields.values():
        if isinstance(field.validation_alias, AliasChoices):
            found |= {str(name) for name in field.validation_alias.choices}
    return found
