"""Parameters and members that nobody knows are refused by every route, and told what is meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from api.http.names import name_of, strange, unknown

KNOWN = frozenset(("video_id", "user_id", "k", "budget_ms"))


def faults(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 422, response.text
    body = response.json()
    assert body["type"].endswith("invalid-parameter")
    return {error["name"]: error["detail"] for error in body["errors"]}


@pytest.mark.parametrize("name", ["userid", "userId", "user-id", "USER_ID", "usr_id", "user_ids"])
def test_the_name_that_is_meant_is_told(name: str) -> None:
    assert unknown(name, KNOWN)["detail"] == "unknown; is user_id meant?"


def test_where_no_name_is_near_all_are_told() -> None:
    known = "budget_ms, k, user_id, video_id"
    assert unknown("colour", KNOWN)["detail"] == f"unknown; known are {known}"
    assert unknown("colour", ())["detail"] == "unknown; no parameter is taken here"
    assert len(unknown("x" * 5000, KNOWN)["name"]) == 100


@given(st.dictionaries(st.one_of(st.sampled_from(sorted(KNOWN)), st.text(min_size=1)), st.text()))
def test_exactly_the_unknown_names_of_a_query_string_are_found(values: dict[str, str]) -> None:
    values = {
        name: value for name, value in values.items() if name.encode("utf-8", "replace").decode()
    }
    query = urlencode(values, errors="replace").encode()
    found = [fault["name"] for fault in strange(query, KNOWN)]
    shown = [name.encode("utf-8", "replace").decode() for name in values]
    assert found == [name[:100] for name in dict.fromkeys(shown) if name not in KNOWN]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_name_is_read_however_it_is_written(name: str) -> None:
    assert name_of(quote(name, safe="").encode() + b"=x=y") == name


def operations(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Every (method, path) of the document under `/v1/`, with an id in each place for one."""
    for path, methods in app.openapi()["paths"].items():
        if path.startswith("/v1/"):
            for method in methods:
                yield method.upper(), path.replace("{", "").replace("}", "")


async def test_every_route_refuses_a_parameter_that_it_does_not_have(
    app: FastAPI, http: httpx.AsyncClient
) -> None:
    asked = list(operations(app))
    assert len(asked) > 15
    for method, path in asked:
        response = await http.request(method, f"{path}?video_id=v&zebra=1")
        assert "zebra" in faults(response), (method, path)


async def test_a_lookup_is_not_made_for_nobody_where_a_user_is_misspelt(
    http: httpx.AsyncClient,
) -> None:
    response = await http.get("/v1/queries?video_id=v&userid=u&k=3&colour=red&userid=w")
    told = faults(response)
    assert told["userid"] == "unknown; is user_id meant?"
    assert told["colour"].startswith("unknown; known are budget_ms")
    assert len(told) == 2
    assert (await http.get("/v1/queries?video%5Fid=v&user%5Fid=u&")).status_code == 200


@pytest.mark.parametrize(
    ("body", "name", "detail"),
    [
        ({"requests": [{"video_id": "v", "userid": "u"}]}, "requests[0].userid", "user_id"),
        ({"requests": [{"video_id": "v"}], "budget": 5}, "budget", "budget_ms"),
    ],
)
async def test_a_batch_with_a_member_that_nobody_knows_is_refused(
    http: httpx.AsyncClient, body: dict[str, Any], name: str, detail: str
) -> None:
    told = faults(await http.post("/v1/queries", json=body))
    assert told == {name: f"unknown; is {detail} meant?"}


async def test_a_rule_with_a_member_that_nobody_knows_is_refused(http: httpx.AsyncClient) -> None:
    told = faults(await http.put("/v1/rules/r", json={"action": "block", "quary": "boots"}))
    assert told == {"quary": "unknown; is query meant?"}


async def test_pages_and_probes_take_any_parameter(http: httpx.AsyncClient) -> None:
    for path in ("/", "/docs", "/healthz", "/metrics"):
        assert (await http.get(f"{path}?utm_source=x")).status_code == 200, path
