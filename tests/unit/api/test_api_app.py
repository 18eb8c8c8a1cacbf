"""The application without servers: what it loads, what it says of itself, and how it refuses."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest.mock import ANY

import httpx
import jsonschema
import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from nowhere import NOWHERE
from structlog.testing import capture_logs

from api.answering.forms import from_anchors
from api.app import create_app
from api.http.auth import ApiKeyError, UnsafeBindError
from api.http.problems import InvalidParameterError, ProblemError, title_of
from api.http.schemas import is_id
from api.routes.events import InvalidEventsError, all_or_none, check
from api.routes.page import assets
from api.routes.queries import QueriesEndpoint, wanted_of
from api.server import AddressInUseError, free_port
from api.services import Services
from onebar.gating.rules import LANGUAGES
from onebar.records import Anchor, Candidate, Features
from stream.events import Event


def is_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-content-type-options"] == "nosniff"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert "Traceback" not in response.text
    return body


def test_importing_the_app_loads_no_heavy_library() -> None:
    heavy = ("torch", "transformers", "faust", "ctranslate2")
    code = f"import sys, api.app; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_an_unsafe_address_or_a_bad_key_ends_the_start() -> None:
    with pytest.raises(UnsafeBindError):
        create_app(NOWHERE.model_copy(update={"api_host": "0.0.0.0"}))
    with pytest.raises(ApiKeyError):
        create_app(NOWHERE.model_copy(update={"api_keys": ("read:abc",)}))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/queries/", 404),
        ("PUT", "/v1/queries", 405),
        ("GET", "/v1/events", 405),
        ("POST", "/v1/feed", 405),
        ("GET", "/static/nope.js", 404),
        ("GET", "/static/..%2fapp.py", 404),
        ("GET", "/v1/queries", 422),
        ("GET", "/v1/queries?video_id=", 422),
        ("GET", "/v1/queries?video_id=a&video_id=b", 422),
        ("GET", "/v1/queries?video_id=%ff", 422),
        ("GET", "/v1/queries?video_id=a%00b", 422),
        ("GET", "/v1/queries?video_id=" + "x" * 257, 422),
        ("GET", "/v1/queries?video_id=a&user_id=%0a", 422),
        ("GET", "/v1/queries?video_id=a&k=0", 422),
        ("GET", "/v1/queries?video_id=a&k=9", 422),
        ("GET", "/v1/queries?video_id=a&k=1.5", 422),
        ("GET", "/v1/queries?video_id=a&k=", 422),
        ("GET", "/v1/queries?video_id=a&budget_ms=-1", 422),
        ("GET", "/v1/queries?video_id=a&budget_ms=nan", 422),
        ("GET", "/v1/queries?video_id=a&budget_ms=1_0", 422),
        ("GET", "/v1/queries?video_id=a&budget_ms=2001", 422),
        ("GET", "/v1/evidence", 422),
        ("GET", "/v1/evidence?video_id=", 422),
        ("GET", "/v1/videos//anchors", 422),
        ("GET", "/v1/videos/a%7fb/anchors", 422),
        ("GET", "/v1/videos/", 422),
        ("GET", "/v1/videos/a%7fb", 422),
        ("GET", "/v1/videos/a/b", 404),
        ("GET", "/v1/videos/v", 503),
        ("GET", "/v1/videos/%ff/anchors", 422),
        ("DELETE", "/v1/users/%e4%bd", 422),
        ("GET", "/v1/%80", 422),
        ("GET", "/v1/users//history", 422),
        ("DELETE", "/v1/users/", 422),
        ("DELETE", "/v1/users/x/history", 404),
        ("PUT", "/v1/rules/a%7fb", 422),
        ("GET", "/v1/rules?limit=0", 422),
        ("GET", "/v1/feed?limit=0", 422),
        ("GET", "/v1/feed?limit=x", 422),
        ("GET", "/v1/feed?video_id=a%7fb", 422),
        ("GET", "/v1/watch", 422),
        ("GET", "/v1/watch?video_id=", 422),
        ("GET", "/v1/explanation", 422),
        ("GET", "/v1/explanation?video_id=v", 503),
        ("GET", "/v1/dead-letters?limit=0", 422),
        ("POST", "/v1/dead-letters/drop", 415),
        ("GET", "/v1/click-rates", 503),
        ("POST", "/v1/models/rollback", 409),
        ("POST", "/v1/models/m/promote", 409),
        ("POST", "/v1/models/m/shadow", 409),
    ],
)
async def test_every_refusal_is_a_problem(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await http.request(method, path)
    is_problem(answer, status)
    assert "Value error" not in answer.text  # the library's word, not ours


async def test_a_line_that_is_no_json_is_named(http: httpx.AsyncClient) -> None:
    lines = b'{"type": "impression"}\n\n{"type": "impression"}\nbad\n'
    answer = await http.post(
        "/v1/events", content=lines, headers={"Content-Type": "application/x-ndjson"}
    )
    is_problem(answer, 422)
    assert "not JSON, at index 2: " in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
        ("/operations", "GET, HEAD"),
        ("/v1/page", "GET, HEAD"),
        ("/v1/click-rates", "GET, HEAD"),
        ("/v1/dead-letters", "GET, HEAD"),
        ("/v1/dead-letters/drop", "POST"),
        ("/v1/dead-letters/replay", "POST"),
        ("/v1/explanation", "GET, HEAD"),
        ("/v1/models", "GET, HEAD"),
        ("/v1/models/m/promote", "POST"),
        ("/v1/models/m/shadow", "POST"),
        ("/v1/models/rollback", "POST"),
        ("/v1/operations", "GET, HEAD"),
        ("/v1/watch", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
        ("/openapi.json", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/static/page.js", "GET, HEAD"),
        ("/v1/events", "POST"),
        ("/v1/evidence", "GET, HEAD"),
        ("/v1/feed", "GET, HEAD"),
        ("/v1/queries", "GET, HEAD, POST"),
        ("/v1/rules", "GET, HEAD"),
        ("/v1/users/u", "DELETE"),
        ("/v1/users/u/history", "GET, HEAD"),  # of a user that is named so
        ("/v1/videos/a/b/anchors", "GET, HEAD"),
        ("/v1/videos/a%2Fb", "GET, HEAD"),
    ],
)
async def test_what_is_allowed_at_a_path_is_all_of_it(
    http: httpx.AsyncClient, path: str, allowed: str
) -> None:
    answer = await http.put(path)
    is_problem(answer, 405)
    assert answer.headers["allow"] == allowed
    assert allowed in answer.json()["detail"]


def test_every_route_is_asked_what_it_allows(app: FastAPI) -> None:
    """One added later would fail here until it is named above."""
    assert set(app.openapi()["paths"]) == {
        *("/healthz", "/metrics", "/readyz", "/v1/events", "/v1/evidence", "/v1/feed"),
        *("/v1/queries", "/v1/rules", "/v1/rules/{rule_id}"),
        *("/v1/click-rates", "/v1/explanation", "/v1/operations", "/v1/watch"),
        *("/v1/dead-letters", "/v1/dead-letters/drop", "/v1/dead-letters/replay"),
        *("/v1/models", "/v1/models/rollback"),
        *("/v1/models/{name}/promote", "/v1/models/{name}/shadow"),
        *("/v1/users/{user_id}", "/v1/users/{user_id}/history"),
        *("/v1/videos/{video_id}", "/v1/videos/{video_id}/anchors"),
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/static/docs.css", 200),
        ("/healthz", 200),
        ("/openapi.json", 200),
        ("/v1/queries?video_id=v", 200),
        ("/v1/queries", 422),
        ("/v1/events", 405),
        ("/nope", 404),
    ],
)
async def test_head_is_get_without_the_body(
    http: httpx.AsyncClient, path: str, status: int
) -> None:
    named = {"x-request-id": "the-same"}
    got, headed = await http.get(path, headers=named), await http.head(path, headers=named)
    assert (got.status_code, headed.status_code) == (status, status)
    assert got.content
    assert not headed.content
    if path != "/v1/queries?video_id=v":  # answers have names of their own
        assert dict(headed.headers) == dict(got.headers)


async def test_middleware_sees_every_request() -> None:
    app = create_app(NOWHERE)
    seen: list[str] = []

    @app.middleware("http")
    async def see(request: Request, proceed: Any) -> Any:
        seen.append(f"{request.method} {request.url.path}")
        response = await proceed(request)
        response.headers["x-seen"] = "yes"
        return response

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        for _ in range(2):
            answers = [
                await http.get("/v1/queries", params={"video_id": "v"}),
                await http.post("/v1/queries", json={"requests": [{"video_id": "v"}]}),
                await http.get("/healthz"),
            ]
            assert [answer.status_code for answer in answers] == [200, 200, 200]
            assert all(answer.headers["x-seen"] == "yes" for answer in answers)
            assert answers[0].json()["source"] == "fallback"
        is_problem(await http.get("/v1/queries"), 422)
    assert seen == ["GET /v1/queries", "POST /v1/queries", "GET /healthz"] * 2 + ["GET /v1/queries"]


async def test_the_fast_path_answers_as_the_framework_does(http: httpx.AsyncClient) -> None:
    """But for headers that matter to documents only."""
    app = create_app(NOWHERE)
    app.add_middleware(Unchanged)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as framework:
        for query in ("?video_id=v", "", "?video_id=v&k=99"):
            fast = await http.get(f"/v1/queries{query}")
            slow = await framework.get(f"/v1/queries{query}")
            assert fast.status_code == slow.status_code
            one, other = fast.json(), slow.json()
            assert {**one, "request_id": 0} == {**other, "request_id": 0}
            assert one["request_id"] == fast.headers["x-request-id"]
            assert other["request_id"] == slow.headers["x-request-id"]


class Unchanged:
    """Middleware that does nothing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


async def test_a_missing_video_is_named(http: httpx.AsyncClient) -> None:
    body = is_problem(await http.get("/v1/queries?k=x"), 422)
    assert [error["name"] for error in body["errors"]] == ["video_id", "k"]


@pytest.mark.parametrize("path", ["/v1/queries", "/v1/events"])
@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{}", {}, 415),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"", {"content-type": "application/json"}, 422),
        (b"{", {"content-type": "application/json"}, 422),
        (b'{"a": NaN}', {"content-type": "application/json"}, 422),
        (b'"\\ud800"', {"content-type": "application/json"}, 422),
        (b"\xff", {"content-type": "application/json"}, 422),
        (b"[" * 100_000, {"content-type": "application/json"}, 422),
        (b"3", {"content-type": "application/json; charset=utf-8"}, 422),
        (b" " * 8_000_001, {"content-type": "application/json"}, 413),
    ],
)
async def test_bodies_that_are_refused(
    http: httpx.AsyncClient, path: str, content: bytes, headers: dict[str, str], status: int
) -> None:
    is_problem(await http.post(path, content=content, headers=headers), status)


async def test_a_body_of_unknown_length_is_cut_off(http: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b" " * 1_000_000

    response = await http.post(
        "/v1/events", content=endless(), headers={"content-type": "application/json"}
    )
    is_problem(response, 413)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({}, "body"),
        ({"requests": []}, "requests"),
        ({"requests": [{"video_id": "v"}] * 257}, "requests"),
        ({"requests": [{"video_id": "v"}, {"video_id": 3}]}, "requests[1].video_id"),
        ({"requests": [{"video_id": "v", "user_id": "a\nb"}]}, "requests[0].user_id"),
        ({"requests": [{"video_id": "v"}], "k": 9}, "k"),
        ({"requests": [{"video_id": "v"}], "budget_ms": 1e9}, "budget_ms"),
    ],
)
async def test_batches_that_are_refused(
    http: httpx.AsyncClient, body: dict[str, Any], name: str
) -> None:
    refused = is_problem(await http.post("/v1/queries", json=body), 422)
    assert refused["errors"][0]["name"] == name


async def test_what_nobody_foresaw_is_a_problem_without_a_trace(app: FastAPI) -> None:
    broken = create_app(NOWHERE)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret inside")

    broken.state.services.answerer.ask = fail
    broken.state.services.publisher.send = fail
    transport = httpx.ASGITransport(broken, raise_app_exceptions=False)
    event = {"type": "impression", "event_id": "e", "ts": 1, "video_id": "v"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        with capture_logs() as logged:
            for response in (
                await http.get("/v1/queries?video_id=v"),
                await http.post("/v1/queries", json={"requests": [{"video_id": "v"}]}),
                await http.post("/v1/events", json=event),
            ):
                is_problem(response, 500)
                assert "secret" not in response.text
        assert [entry["event"] for entry in logged] == ["request_failed"] * 3


KEYED = NOWHERE.model_copy(
    update={
        "api_host": "0.0.0.0",
        "api_keys": tuple(
            f"{scope}:{hashlib.sha256(scope.encode()).hexdigest()}"
            for scope in ("read", "write", "admin")
        ),
    }
)


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/queries", "read"),
        ("POST", "/v1/queries", "read"),
        ("POST", "/v1/events", "write"),
        ("GET", "/v1/evidence", "read"),
        ("GET", "/v1/videos/a%2Fb/anchors", "read"),
        ("GET", "/v1/videos/a%2Fb", "read"),
        ("GET", "/v1/users/u/history", "read"),
        ("DELETE", "/v1/users/u", "admin"),
        ("GET", "/v1/feed", "read"),
        ("GET", "/v1/explanation", "read"),
        ("GET", "/v1/watch", "read"),
        ("GET", "/v1/page", "read"),
        ("GET", "/v1/operations", "admin"),
        ("POST", "/v1/models/m/promote", "admin"),
        ("GET", "/v1/dead-letters", "admin"),
    ],
)
async def test_each_route_asks_for_its_scope_alone(method: str, path: str, scope: str) -> None:
    transport = httpx.ASGITransport(create_app(KEYED), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://api.example") as http:
        is_problem(await http.request(method, path), 401)
        for key in ("read", "write", "admin"):
            response = await http.request(method, path, headers={"x-api-key": key})
            assert (response.status_code == 403) == (key != scope)
            assert response.status_code != 401


def test_no_route_of_the_api_is_open() -> None:
    """A route added later without a scope would fail here."""
    document = create_app(KEYED).openapi()
    for path, operations in document["paths"].items():
        for method, described in operations.items():
            assert bool(described.get("security")) == path.startswith("/v1/"), f"{method} {path}"


async def test_the_page_and_its_parts_bring_nothing_from_elsewhere(
    http: httpx.AsyncClient,
) -> None:
    for path in ("/", "/docs", "/operations"):
        response = await http.get(path)
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for link in re.findall(r'(?:src|href)="([^"#]+)"', response.text):
            assert link.startswith("/")
            assert (await http.get(link)).status_code == 200, link
        assert not re.search(r"<script>|<style>|\son\w+=|style=", response.text)
    for name, asset in assets().items():
        assert not re.search(rb"(?<!xmlns=\")https?://", asset.body), name
        assert b"innerHTML" not in asset.body


async def test_no_other_site_may_read(http: httpx.AsyncClient) -> None:
    response = await http.get("/healthz", headers={"origin": "https://evil.example"})
    assert response.json() == {"status": "ok"}
    assert not [name for name in response.headers if name.startswith("access-control")]
    assert "default-src 'none'" in response.headers["content-security-policy"]


async def test_metrics_count_routes_by_their_pattern(http: httpx.AsyncClient) -> None:
    await http.get("/v1/videos//anchors")
    await http.get("/some/path/nobody/has")
    await http.get("/v1/queries?video_id=")
    text = (await http.get("/metrics")).text
    counted = re.findall(r"onebar_http_requests_total\{(.*)\} ", text)
    assert 'method="GET",route="/v1/videos/{video_id:path}/anchors",status="422"' in counted
    assert 'method="GET",route="other",status="404"' in counted
    assert 'method="GET",route="/v1/queries",status="422"' in counted
    assert "nobody" not in text


async def test_openapi_describes_every_route(app: FastAPI, http: httpx.AsyncClient) -> None:
    document = (await http.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert named <= set(schemas)
    for path, operations in document["paths"].items():
        for method, described in operations.items():
            where = f"{method} {path}"
            assert described["summary"], where
            good = [status for status in described["responses"] if status < "300"]
            assert good, where
            for status, response in described["responses"].items():
                assert status == "204" or response.get("content"), f"{where} {status}"
                if status >= "400" and path != "/readyz":
                    assert list(response["content"]) == ["application/problem+json"], where
    parameters = document["paths"]["/v1/queries"]["get"]["parameters"]
    batch = schemas["BatchRequest"]["properties"].keys() - {"requests"}
    assert {p["name"] for p in parameters} == {"video_id", "user_id", *batch}
    assert "HTTPValidationError" not in schemas


NAMED = "#/components/headers/RequestId"


def test_openapi_shows_an_example_of_everything_and_they_are_true(app: FastAPI) -> None:
    document = app.openapi()
    shown = 0

    def bodies(described: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        for holder in (described.get("requestBody", {}), *described["responses"].values()):
            yield from holder.get("content", {}).items()

    for path, operations in document["paths"].items():
        for method, described in operations.items():
            where = f"{method} {path}"
            assert re.fullmatch(r"[a-z]+(_[a-z]+)+", described["operationId"]), where
            for answer in described["responses"].values():
                assert answer["headers"]["X-Request-ID"] == {"$ref": NAMED}, where
            for media, body in bodies(described):
                if media == "application/x-ndjson":  # the same, one on a line
                    continue
                examples = [each["value"] for each in body.get("examples", {}).values()]
                examples += [body["example"]] if "example" in body else []
                assert examples, f"{where} {media}"
                for example in examples:
                    assert isinstance(example, str) == ("json" not in media)
                    if not isinstance(example, str):
                        schema = {**body["schema"], "components": document["components"]}
                        jsonschema.Draft202012Validator(schema).validate(example)
                        shown += 1
    assert shown > 100
    every = [each for path in document["paths"].values() for each in path.values()]
    ids = [each["operationId"] for each in every]
    assert len(set(ids)) == len(ids)
    assert document["info"]["license"]["identifier"] == "Apache-2.0"
    assert document["servers"] == [{"url": "/", "description": ANY}]
    tags = {tag["name"] for tag in document["tags"]}
    used = {
        tag for path in document["paths"].values() for each in path.values() for tag in each["tags"]
    }
    assert tags == used


@given(st.text(max_size=300))
def test_an_id_that_can_be_one_comes_through(text: str) -> None:
    endpoint = QueriesEndpoint(SERVICES)
    query = str(httpx.QueryParams({"video_id": text})) if is_text(text) else "video_id=%ff"
    if is_id(text) and is_text(text):
        assert endpoint.parameters(query.encode()) == ((text, None), None, None, None)
    else:
        with pytest.raises(InvalidParameterError):
            endpoint.parameters(query.encode())


def is_text(text: str) -> bool:
    return not re.search(r"[\ud800-\udfff]", text)


@given(st.binary(max_size=80))
def test_no_query_string_breaks_the_reader(query: bytes) -> None:
    endpoint = QueriesEndpoint(SERVICES)
    try:
        (video_id, user_id), k, budget_ms, _ = endpoint.parameters(query)
    except InvalidParameterError:
        return
    assert is_id(video_id)
    assert user_id is None or is_id(user_id)
    assert k is None or 1 <= k <= 8
    assert budget_ms is None or 0 <= budget_ms <= 2000


SERVICES = Services(NOWHERE)


def test_empty_users_are_nobody() -> None:
    endpoint = QueriesEndpoint(SERVICES)
    assert endpoint.parameters(b"video_id=a+b%2Fc&user_id=")[0] == ("a b/c", None)
    assert endpoint.parameters(b"video_id=v&user_id=u&k=3&budget_ms=1.5") == (
        ("v", "u"),
        3,
        1.5,
        None,
    )


PLAIN = st.text("abcXYZ019_.~:-", min_size=1, max_size=256)


@given(PLAIN, st.none() | PLAIN)
def test_plain_ids_are_read_alike_wherever_they_stand(video_id: str, user_id: str | None) -> None:
    endpoint = QueriesEndpoint(SERVICES)
    user = "" if user_id is None else f"&user_id={user_id}"
    read = endpoint.parameters(f"video_id={video_id}{user}".encode())
    assert read == endpoint.parameters(f"video_id={video_id}{user}&".encode())
    assert read == ((video_id, user_id), None, None, None)


WANTED = st.fixed_dictionaries(
    {},
    optional={
        "exclude": st.lists(st.text("ab é&=+%鞋", max_size=20), min_size=1, max_size=4),
        "languages": st.lists(st.sampled_from([*LANGUAGES, "xx"]), min_size=1, max_size=3),
        "max_length": st.integers(-1, 99) | st.just("x"),
        "diversity": st.sampled_from([0, 0.25, 1, 1.5, -1, "nan", ""]),
        "constrain": st.sampled_from(["open", "prefer", "only", "never", ""]),
    },
)


@given(WANTED)
def test_a_lookup_can_ask_for_what_a_batch_can(wanted: dict[str, Any]) -> None:
    endpoint = QueriesEndpoint(SERVICES)
    query = str(httpx.QueryParams({"video_id": "v", **wanted})).encode()
    body = json.dumps({"requests": [{"video_id": "v"}], **wanted}).encode()
    try:
        expected: Any = wanted_of(endpoint.requests(body))
    except InvalidParameterError:
        with pytest.raises(InvalidParameterError):
            endpoint.parameters(query)
    else:
        assert endpoint.parameters(query)[3] == expected


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("languages", "xx", "expected one of ja, zh, ko, th, ar, he, hi, bn, ru, el, en, got 'xx'"),
        ("constrain", "never", "expected one of open, prefer, only, got 'never'"),
        ("max_length", "x", "expected a whole number from 1 to 10000"),
        ("max_length", 0, "Expected `int` >= 1"),
        ("diversity", "much", "expected a number from 0 to 1"),
        ("diversity", 2, "Expected `float` <= 1.0"),
    ],
)
def test_what_is_not_wanted_right_is_told_what_would_be(name: str, value: Any, said: str) -> None:
    query = str(httpx.QueryParams({"video_id": "v", name: value})).encode()
    with pytest.raises(InvalidParameterError) as caught:
        QueriesEndpoint(SERVICES).parameters(query)
    assert caught.value.extra["errors"] == [{"name": name, "detail": said}]


def body_of(*pairs: tuple[Any, Any], **rest: Any) -> bytes:
    requests = [{"video_id": video_id, "user_id": user_id} for video_id, user_id in pairs]
    return json.dumps({"requests": requests, **rest}).encode()


@given(st.lists(st.tuples(st.text(max_size=300), st.none() | st.text(max_size=300)), max_size=5))
def test_a_batch_is_read_or_its_faults_are_named(pairs: list[tuple[str, str | None]]) -> None:
    endpoint = QueriesEndpoint(SERVICES)
    good = [is_id(video_id) and (not user_id or is_id(user_id)) for video_id, user_id in pairs]
    if pairs and all(good):
        read = endpoint.requests(body_of(*pairs)).requests
        assert [(pair.video_id, pair.user_id) for pair in read] == pairs
        return
    with pytest.raises(InvalidParameterError) as caught:
        endpoint.requests(body_of(*pairs))
    assert caught.value.status == 422


def test_every_fault_of_a_batch_is_named() -> None:
    endpoint = QueriesEndpoint(SERVICES)
    with pytest.raises(InvalidParameterError) as caught:
        endpoint.requests(body_of(("v", "u"), ("v\n", "\x7f"), ("v", ""), k=64, budget_ms=1e9))
    names = [fault["name"] for fault in caught.value.extra["errors"]]
    assert names == ["requests[1].video_id", "requests[1].user_id", "k", "budget_ms"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"requests":[{"video_id":"\xff"}]}', "not JSON"),
        (b'{"requests":[{"video_id":"\\ud800"}]}', "not JSON"),
        (b"[]", "Expected `object`"),
        (body_of(), "length >= 1"),
        (body_of(*[("v", None)] * 257), "length <= 256"),
        (body_of((3, None)), "Expected `str`"),
        (b'{"requests":[{"video_id":"v"}],"budget_ms":NaN}', "not JSON"),
        (b'{"requests":[{"video_id":"v"}]} x', "not JSON"),
    ],
)
def test_what_is_no_batch_is_refused(body: bytes, said: str) -> None:
    with pytest.raises(InvalidParameterError, match=said):
        QueriesEndpoint(SERVICES).requests(body)


GOOD = {"type": "impression", "event_id": "e", "ts": 100.0, "video_id": "v"}


def checked(values: list[Any]) -> list[Event]:
    return all_or_none([check(index, value, latest=100.0) for index, value in enumerate(values)])


def test_events_are_taken_or_all_refused() -> None:
    assert len(checked([GOOD, GOOD])) == 2
    bad: list[Any] = [
        GOOD,
        {**GOOD, "ts": 100.5},
        {**GOOD, "type": "nope"},
        3,
        {**GOOD, "ts": "now"},
        GOOD,
        {"type": "video", "event_id": "e", "ts": 1, "video_id": "v", "asr": "x" * 1_000_000},
    ]
    with pytest.raises(InvalidEventsError) as caught:
        checked(bad)
    assert [fault["index"] for fault in caught.value.extra["errors"]] == [1, 2, 3, 4, 6]
    assert "future" in caught.value.extra["errors"][0]["detail"]
    assert "$.ts" in caught.value.extra["errors"][3]["detail"]


def test_a_long_list_of_faults_is_cut() -> None:
    with pytest.raises(InvalidEventsError) as caught:
        checked([{}] * 1000)
    assert len(caught.value.extra["errors"]) == 100
    assert "1000 of 1000" in caught.value.detail


def test_anchors_become_queries_that_may_be_shown() -> None:
    named = ("Red Shoes", "[REJECT]", "a [SEP] b", "red shoes", "?!", "", "x" * 500, "boots")
    anchors = tuple(Anchor(query, 9.0 - at) for at, query in enumerate(named))
    shown = from_anchors(Features(anchors=anchors))
    assert shown == (Candidate("red shoes", 9.0), Candidate("boots", 2.0))


def test_a_problem_holds_whatever_came() -> None:
    response = ProblemError(422, "x", "bad \ud800", errors=[{"name": "\udfff"}]).response()
    assert json.loads(bytes(response.body))["status"] == 422


def test_a_status_is_called_alike_by_every_python() -> None:
    """Older ones have older names for two of them, and the document is to be the same on all."""
    assert title_of(413) == "Content Too Large"
    assert title_of(422) == "Unprocessable Content"
    assert title_of(404) == "Not Found"


def test_ports() -> None:
    free = free_port("127.0.0.1", 0)
    assert free > 0
    assert free_port("127.0.0.1", free) == free
    import socket

    with socket.create_server(("127.0.0.1", free)), pytest.raises(AddressInUseError, match="PORT"):
        free_port("127.0.0.1", free)
