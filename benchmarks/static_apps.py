"""What a cached lookup is compared with: the same bytes, served without looking anything up.

    python benchmarks/static_apps.py fastapi --port 8000 --body body.json
    python benchmarks/static_apps.py asgi --port 8000 --body body.json

Run by benchmarks/lookup.py on the server and with the settings of the API.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from granian import Granian
from granian.constants import Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels


def fastapi_app(body: bytes) -> Any:
    """A FastAPI route that returns the bytes, as its documentation would have it."""
    app = FastAPI()

    @app.get("/v1/queries")
    async def static() -> Response:
        return Response(body, media_type="application/json")

    return app


def asgi_app(body: bytes) -> Any:
    """The least an ASGI application can do."""
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
        ],
    }
    end = {"type": "http.response.body", "body": body}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send(start)
        await send(end)

    return app


APPS: dict[str, Callable[[bytes], Any]] = {"fastapi": fastapi_app, "asgi": asgi_app}


def load(name: str, body: bytes) -> Any:
    return APPS[name](body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("app", choices=sorted(APPS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--body", type=Path, required=True)
    options = parser.parse_args()
    server = Granian(
        options.app,
        address="127.0.0.1",
        port=options.port,
        interface=Interfaces.ASGI,
        workers=1,
        websockets=False,
        http1_settings=HTTP1Settings(keep_alive=True),
        log_level=LogLevels.warning,
        log_access=False,
    )
    server.serve(
        target_loader=partial(load, options.app, options.body.read_bytes()), wrap_loader=False
    )


if __name__ == "__main__":
    main()
