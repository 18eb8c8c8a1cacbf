"""Settings as the variables of a child process."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator

from onebar.addresses import shown_url
from onebar.settings import FILE, Settings, is_secret, variables_of


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with `settings` as its `ONEBAR_*` variables, and no others."""
    ours = names()
    env = {name: value for name, value in os.environ.items() if name not in ours}
    return env | variables(settings)


def variables(settings: Settings, *, secrets: bool = True) -> dict[str, str]:
    """The settings that differ from their defaults, as variables; without `secrets` none that may
    not be shown. The state version where it was set at all, which pins a process to it."""
    found = {}
    defaults = Settings.model_construct()
    for name in Settings.model_fields:
        value = getattr(settings, name)
        pins = name == "state_version" and name in settings.model_fields_set
        if (pins or value != getattr(defaults, name)) and (secrets or _may_be_shown(name, value)):
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            found[f"ONEBAR_{name.upper()}"] = text
    return found


def exports(settings: Settings) -> Iterator[str]:
    """Lines for a shell that point any other `onebar` command at the same servers; no secrets."""
    for name, value in variables(settings, secrets=False).items():
        yield f"export {name}={shlex.quote(value)}"


def _may_be_shown(name: str, value: object) -> bool:
    return not is_secret(name) or (name == "redis_url" and shown_url(str(value)) == value)


def names() -> set[str]:
    """All that a setting is read from: old names too, and those that name files."""
    found = {variable for name in Settings.model_fields for variable in variables_of(name)}
    return found | {variable + FILE for variable in found}
