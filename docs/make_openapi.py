"""Writes docs/openapi.json, the API's own document, for clients that are generated.

python docs/make_openapi.py            write it
python docs/make_openapi.py --check    status 1 if it is not what would be written
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from api.app import create_app
from onebar.settings import Settings

PAGE = Path(__file__).resolve().parent / "openapi.json"


def document() -> str:
    """As it is served at /openapi.json."""
    return json.dumps(create_app(Settings()).openapi(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(PAGE.read_text() != document())
    PAGE.write_text(document())
