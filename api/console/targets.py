"""The workers: asked for what they count, and how they are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx
import orjson
from msgspec import Struct

from api.console.numbers import Numbers, read_numbers

TIMEOUT_S = 2.0
NOTHING = Numbers({}, {})


class Part(Struct, frozen=True):
    """One process, or server, as it says itself: `problems` and `warnings` by what they are about.
    `up`: it answered; `fine`: and all is well."""

    name: str
    address: str
    up: bool
    fine: bool
    problems: dict[str, str]
    warnings: dict[str, str]
    numbers: Numbers


async def ask_all(targets: Sequence[str]) -> list[Part]:
    """All of `name=host:port`, at once; two seconds at most."""
    if not targets:
        return []
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
        return list(await asyncio.gather(*(_ask(http, target) for target in targets)))


async def _ask(http: httpx.AsyncClient, target: str) -> Part:
    name, _, address = target.partition("=")
    try:
        numbers, health = await asyncio.gather(
            http.get(f"http://{address}/metrics"), http.get(f"http://{address}/healthz")
        )
        said = orjson.loads(health.content)
        return Part(
            name,
            address,
            up=True,
            fine=bool(said["healthy"]),
            problems=said.get("problems", {}),
            warnings=said.get("warnings", {}),
            numbers=read_numbers(numbers.text),
        )
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        why = str(error) or type(error).__name__
        return Part(name, address, False, False, {"answer": why}, {}, NOTHING)
