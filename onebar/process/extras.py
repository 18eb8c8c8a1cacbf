"""How an extra that lacks is installed. OneBar is on no package index, so it depends on where this
one came from."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

FROM_A_CHECKOUT = "pip install '.[{extra}]' in a checkout of OneBar"


def how_to_install(extra: str) -> str:
    """What to type, after what the installer wrote down of this installation (PEP 610)."""
    # A checkout in the working directory may be found as well; it was not installed.
    told = (found.read_text("direct_url.json") for found in distributions(name="onebar"))
    return command(extra, json.loads(next(filter(None, told), "{}")))


def command(extra: str, origin: dict[str, Any]) -> str:
    """`how_to_install` for the content of a `direct_url.json`, {} where there is none."""
    url = str(origin.get("url", ""))
    if url.startswith("file:") and "dir_info" in origin:
        path = Path(unquote(urlsplit(url).path))
        if not (path / "pyproject.toml").is_file():  # that checkout is gone
            return FROM_A_CHECKOUT.format(extra=extra)
        editable = "-e " if origin["dir_info"].get("editable") else ""
        return f"pip install {editable}{shlex.quote(f'{path}[{extra}]')}"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    if url:
        return f"pip install {shlex.quote(f'onebar[{extra}] @ {url}')}"
    return FROM_A_CHECKOUT.format(extra=extra)
