"""What clients expect at the edges: compressed answers, origins that are let in, files that are
asked for again."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nowhere import NOWHERE
from pydantic import ValidationError

from api.app import create_app
from api.edge.compress import LEAST_BYTES, wanted
from onebar.settings import Settings

FEED, OTHER = "https://feed.example", "https://evil.example"
MANY = {"requests": [{"video_id": f"v{n}"} for n in range(200)]}


@asynccontextmanager
async def client(**changes: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(NOWHERE.model_copy(update=changes))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as made:
        yield made


async def raw(http: httpx.AsyncClient, method: str, path: str, **rest: Any) -> tuple[Any, bytes]:
    """An answer, and its body as it came over the wire."""
    async with http.stream(method, path, **rest) as answer:
        return answer, b"".join([part async for part in answer.aiter_raw()])


@pytest.mark.parametrize(
    ("method", "path", "json_body"),
    [
        ("POST", "/v1/queries", MANY),
        ("GET", "/openapi.json", None),
        ("GET", "/static/page.js", None),
        ("GET", "/metrics", None),
    ],
)
async def test_a_long_answer_is_compressed_where_that_is_asked_for(
    method: str, path: str, json_body: Any
) -> None:
    async with client(api_gzip_lookups=True) as http:
        asked = {"accept-encoding": "br, gzip"}
        plainly = {"accept-encoding": "gzip;q=0, identity"}
        long, packed = await raw(http, method, path, json=json_body, headers=asked)
        plain, body = await raw(http, method, path, json=json_body, headers=plainly)
    assert long.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert len(packed) < len(body) / 2
    for answer, sent in ((long, packed), (plain, body)):
        assert answer.status_code == 200
        assert "Accept-Encoding" in answer.headers["vary"]
        assert int(answer.headers["content-length"]) == len(sent)
    unpacked = gzip.decompress(packed)
    if path == "/v1/queries":
        videos = [each["video_id"] for each in json.loads(unpacked)["results"]]
        assert videos == [each["video_id"] for each in MANY["requests"]]
    elif path != "/metrics":  # what is counted goes on
        assert unpacked == body


async def test_lookups_are_compressed_only_where_that_is_set() -> None:
    """On the fast path and within the framework alike."""
    asked = {"accept-encoding": "gzip"}
    for gzip_lookups in (False, True):
        changed = NOWHERE.model_copy(update={"api_gzip_lookups": gzip_lookups})
        inside = create_app(changed)

        @inside.middleware("http")
        async def see(request: Any, proceed: Any) -> Any:
            return await proceed(request)

        for app in (create_app(changed), inside):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                many, body = await raw(http, "POST", "/v1/queries", json=MANY, headers=asked)
                assert ("content-encoding" in many.headers) is gzip_lookups
                assert ("vary" in many.headers) is gzip_lookups
                assert body.startswith(b'{"results"') is not gzip_lookups
                one, _ = await raw(http, "GET", "/v1/queries?video_id=v", headers=asked)
                assert "content-encoding" not in one.headers
                page, _ = await raw(http, "GET", "/openapi.json", headers=asked)
                assert page.headers["content-encoding"] == "gzip"


async def test_head_says_of_a_compressed_answer_what_get_does() -> None:
    named = {"accept-encoding": "gzip", "x-request-id": "same"}
    async with client() as http:
        got, _ = await raw(http, "GET", "/openapi.json", headers=named)
        head, body = await raw(http, "HEAD", "/openapi.json", headers=named)
    assert body == b""
    assert dict(head.headers) == dict(got.headers)


async def test_a_short_answer_is_never_compressed() -> None:
    async with client() as http:
        for path in ("/v1/queries?video_id=v", "/healthz", "/nope"):
            answer, body = await raw(http, "GET", path, headers={"accept-encoding": "gzip"})
            assert len(body) < LEAST_BYTES
            assert "content-encoding" not in answer.headers
            assert "vary" not in answer.headers
            json.loads(body)


@pytest.mark.parametrize(
    ("asked", "takes"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("br;q=1.0, gzip;q=0.5", True),
        ("*", True),
        ("gzip; q=0.001", True),
        ("", False),
        ("br", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("xgzip", False),
    ],
)
def test_who_takes_gzip(asked: str, takes: bool) -> None:
    assert wanted([(b"accept-encoding", asked.encode())]) is takes
    assert wanted([]) is False


@given(st.binary(max_size=60))
def test_no_header_breaks_the_reader(asked: bytes) -> None:
    wanted([(b"accept-encoding", asked)])


async def test_a_file_that_did_not_change_is_not_sent_again() -> None:
    async with client() as http:
        for path in ("/", "/docs", "/operations", "/static/page.js", "/static/icon.svg"):
            first = await http.get(path)
            etag = first.headers["etag"]
            assert first.headers["cache-control"] == "no-cache"
            for known in (etag, f'"x", {etag}', etag.removeprefix("W/"), "*"):
                again = await http.get(path, headers={"if-none-match": known})
                assert (again.status_code, again.content) == (304, b"")
                assert again.headers["etag"] == etag
                assert again.headers["cache-control"] == "no-cache"
                assert "content-security-policy" in again.headers
            for other in ('"x"', f'W/"{etag}', ""):
                assert (await http.get(path, headers={"if-none-match": other})).content
        assert (await http.get("/static/page.js")).headers["etag"] != (
            await http.get("/static/docs.js")
        ).headers["etag"]


@pytest.mark.parametrize("path", ["/docs", "/operations"])
async def test_a_page_is_found_with_a_slash_behind_it(path: str) -> None:
    async with client() as http:
        answer = await http.get(f"{path}/?a=1")
        assert (answer.status_code, answer.headers["location"]) == (308, path)
        assert (await http.get(answer.headers["location"])).status_code == 200


PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "content-type, x-api-key, x-request-id",
}
CALLS = [
    ("GET", "/v1/queries?video_id=v", 200),
    ("GET", "/v1/queries", 422),
    ("POST", "/v1/queries", 415),
    ("GET", "/healthz", 200),
    ("GET", "/v1/videos/v", 503),
    ("GET", "/nope", 404),
]


def of_origins(answer: httpx.Response) -> dict[str, str]:
    return {name: said for name, said in answer.headers.items() if name.startswith("access-")}


async def test_no_origin_is_let_in_unless_a_setting_names_it() -> None:
    async with client() as http:
        for method, path, status in CALLS:
            answer = await http.request(method, path, headers={"origin": FEED})
            assert answer.status_code == status
            assert of_origins(answer) == {}
        asked = await http.options("/v1/queries", headers={"origin": FEED, **PREFLIGHT})
        assert asked.status_code == 405
        assert of_origins(asked) == {}


@pytest.mark.parametrize(("method", "path", "status"), CALLS)
async def test_an_origin_that_is_named_reads_answers_and_problems(
    method: str, path: str, status: int
) -> None:
    async with client(api_cors_origins=(FEED, "http://localhost:3000")) as http:
        answer = await http.request(method, path, headers={"origin": FEED})
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == FEED
        assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"
        for origin in (OTHER, FEED + ".evil.example", FEED.upper(), "null", ""):
            other = await http.request(method, path, headers={"origin": origin})
            assert of_origins(other) == {}
            assert other.headers["vary"] == "Origin"
        assert of_origins(await http.request(method, path)) == {}


async def test_a_browser_may_ask_first() -> None:
    async with client(api_cors_origins=(FEED,)) as http:
        for path in ("/v1/queries", "/v1/events", "/v1/videos/v"):
            asked = await http.options(path, headers={"origin": FEED, **PREFLIGHT})
            assert (asked.status_code, asked.content) == (204, b"")
            assert asked.headers["access-control-allow-origin"] == FEED
            assert "POST" in asked.headers["access-control-allow-methods"]
            allowed = asked.headers["access-control-allow-headers"].lower()
            for name in PREFLIGHT["access-control-request-headers"].split(", "):
                assert name in allowed
            assert int(asked.headers["access-control-max-age"]) > 0
        refused = await http.options("/v1/queries", headers={"origin": OTHER, **PREFLIGHT})
        assert refused.status_code == 403
        assert refused.json()["type"] == "urn:onebar:problem:origin-not-allowed"
        assert of_origins(refused) == {}
        no_question = await http.options("/v1/queries", headers={"origin": FEED})
        assert no_question.status_code == 405


async def test_any_origin_means_any_and_never_cookies() -> None:
    async with client(api_cors_origins=("*",)) as http:
        for origin in (FEED, OTHER, "null"):
            answer = await http.get("/v1/queries?video_id=v", headers={"origin": origin})
            asked = await http.options("/v1/queries", headers={"origin": origin, **PREFLIGHT})
            assert asked.status_code == 204
            for each in (answer, asked):
                assert each.headers["access-control-allow-origin"] == "*"
                assert "access-control-allow-credentials" not in each.headers


@pytest.mark.parametrize(
    "wrong",
    [
        *(
            "feed.example",
            "https://feed.example/",
            "https://Feed.example",
            "https://*.feed.example",
        ),
        *("null", "https://a b", "https://feed.example:port", "https://", "https://a\r\nx: y"),
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("ONEBAR_API_CORS_ORIGINS", f"https://a.example,{wrong}")
    with pytest.raises(ValidationError, match="expected origins as a browser sends them"):
        Settings()


def test_origins_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = ("https://a.example", "http://localhost:3000", "http://[::1]:8080", "*")
    monkeypatch.setenv("ONEBAR_API_CORS_ORIGINS", " , ".join(listed))
    assert Settings().api_cors_origins == listed
    monkeypatch.setenv("ONEBAR_API_CORS_ORIGINS", "")
    assert Settings().api_cors_origins == ()


JSON_BODY = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "closes"),
    [
        ("POST", "/v1/queries", {"content-type": "text/plain"}, b"abc", 415, True),
        ("POST", "/v1/events", {**JSON_BODY, "content-encoding": "gzip"}, b"abc", 415, True),
        ("PUT", "/v1/rules/r", JSON_BODY, b" " * 70_000, 413, True),
        ("POST", "/v1/nothing", JSON_BODY, b"{}", 404, True),
        ("POST", "/v1/queries", JSON_BODY, b"{", 422, False),
        ("PUT", "/v1/rules/r", JSON_BODY, b"{", 422, False),
        ("POST", "/v1/queries", {}, b"", 415, False),
        ("GET", "/v1/queries", {}, b"", 422, False),
        ("GET", "/v1/nothing", {}, b"", 404, False),
    ],
)
async def test_who_was_answered_unread_is_told_that_the_connection_ends(
    method: str, path: str, headers: dict[str, str], body: bytes, status: int, closes: bool
) -> None:
    async with client() as http:
        answer = await http.request(method, path, headers=headers, content=body)
    assert answer.status_code == status
    assert answer.headers.get("connection") == ("close" if closes else None)
