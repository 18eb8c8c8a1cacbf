"""Names that nobody knows, in a query string or a body: refused, and told what may be meant.

What is misspelt would otherwise be left out: `userid=v` would ask for nobody in particular.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from fastapi import Request
from msgspec import Struct

from api.http.problems import InvalidParameterError

SHOWN = 100
"""Characters of a name that are told back."""
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)


def unknown(name: str, known: Collection[str]) -> dict[str, str]:
    """The fault of a name that is none of the known. Pure."""
    alike = {each.replace("_", ""): each for each in known}
    word = re.sub(r"[\W_]", "", name.lower())
    near = difflib.get_close_matches(word, alike, n=1, cutoff=0.75)
    if near:
        detail = f"unknown; is {alike[near[0]]} meant?"
    elif known:
        detail = f"unknown; known are {', '.join(sorted(known))}"
    else:
        detail = "unknown; no parameter is taken here"
    return {"name": name[:SHOWN], "detail": detail}


def name_of(part: bytes) -> str:
    """The name in a part of a query string."""
    name = part.partition(b"=")[0].replace(b"+", b" ")
    return (unquote_to_bytes(name) if b"%" in name else name).decode("utf-8", "replace")


def strange(query: bytes, known: Collection[str]) -> list[dict[str, str]]:
    """A fault for each name in a query string that is none of the known. Pure."""
    names = dict.fromkeys(name_of(part) for part in query.split(b"&") if part)
    return [unknown(name, known) for name in names if name not in known]


def part_of(error: msgspec.ValidationError, kinds: Iterable[type[Struct]]) -> tuple[str, str]:
    """The part of a body that is wrong, and what was expected; `kinds` are the records that the
    body consists of."""
    detail, _, path = str(error).partition(" - at `$")
    name = path.rstrip("`").lstrip(".")
    found = _UNKNOWN.fullmatch(detail)
    if found is None:
        return name or "body", detail
    fields = [field for kind in kinds for field in kind.__struct_fields__]
    fault = unknown(found[1], fields)
    return f"{name}.{fault['name']}".lstrip("."), fault["detail"]


async def only_known(request: Request) -> None:
    """What every route of `/v1/` depends on. Raises `InvalidParameterError` for a query string
    with a name that the route does not have."""
    query = request.scope["query_string"]
    if query and request.scope["path"].startswith("/v1/"):
        faults = strange(query, _parameters(request.scope["route"]))
        if faults:
            raise InvalidParameterError(faults)


def _parameters(route: Any) -> frozenset[str]:
    """Those of a route: what FastAPI reads, and what is written into the document by hand."""
    named = {each["name"] for each in (route.openapi_extra or {}).get("parameters", ())}
    dependants = [route.dependant]
    while dependants:
        dependant = dependants.pop()
        named |= {field.alias for field in dependant.query_params}
        dependants += dependant.dependencies
    return frozenset(named)
