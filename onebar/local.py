"""The local stack: servers, topics and the three workers as child processes, ended together."""

from __future__ import annotations

import os

from onebar.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """This process's environment with `settings` as its `ONEBAR_*` variables, and no others."""
    names = {name: f"ONEBAR_{name.upper()}" for name in Settings.model_fields}
    env = {name: value for name, value in os.environ.items() if name not in names.values()}
    defaults = Settings.model_construct()
    for name, variable in names.items():
        value = getattr(settings, name)
        if value != getattr(defaults, name):
            env[variable] = ",".join(value) if isinstance(value, tuple) else str(value)
    return env
