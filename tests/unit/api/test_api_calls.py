"""What a request is called: in its answer, in problems, in the logs."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from nowhere import NOWHERE

from api.app import create_app
from api.http.calls import Call
from onebar.process.logging import SUBJECT, configure_logging

MADE = re.compile(r"[0-9a-f]{24}")
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
OURS = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def told(call: Call) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in call.headers()}


PATHS = [
    ("GET", "/v1/queries?video_id=v", 200),
    ("GET", "/v1/queries", 422),
    ("POST", "/v1/queries", 415),
    ("GET", "/healthz", 200),
    ("GET", "/", 200),
    ("GET", "/nope", 404),
    ("PUT", "/v1/queries", 405),
    ("GET", "/v1/videos/a%7fb", 422),
    ("GET", "/v1/videos/v", 503),
    ("GET", "/v1/%80", 422),
]


@pytest.mark.parametrize(("method", "path", "status"), PATHS)
async def test_every_answer_and_every_problem_is_named(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    mine = {"x-request-id": "8c6f0d3e-1b7a-4f57-9b1e-2f1a7c9d0e11", "traceparent": PARENT}
    answer = await http.request(method, path, headers=mine)
    assert answer.status_code == status
    assert answer.headers["x-request-id"] == mine["x-request-id"]
    found = OURS.fullmatch(answer.headers["traceparent"])
    assert found is not None
    assert (found[1], found[3]) == (TRACE, "01")
    assert found[2] not in (SPAN, "0" * 16)
    if status >= 400:
        assert answer.json()["request_id"] == mine["x-request-id"]
    unnamed = await http.request(method, path)
    assert MADE.fullmatch(unnamed.headers["x-request-id"])
    assert "traceparent" not in unnamed.headers
    if status >= 400:
        assert unnamed.json()["request_id"] == unnamed.headers["x-request-id"]


async def test_an_answer_has_a_name_of_its_own(http: httpx.AsyncClient) -> None:
    """The request's own where it brought none; never one that somebody may send twice."""
    alone = await http.get("/v1/queries?video_id=v")
    assert alone.json()["request_id"] == alone.headers["x-request-id"]
    named = [
        await http.get("/v1/queries?video_id=v", headers={"x-request-id": "again"})
        for _ in range(2)
    ]
    assert [each.headers["x-request-id"] for each in named] == ["again", "again"]
    ids = [each.json()["request_id"] for each in named]
    assert len(set(ids)) == 2
    assert all(map(MADE.fullmatch, ids))
    pairs = {"requests": [{"video_id": "v"}, {"video_id": "w"}]}
    batch = await http.post("/v1/queries", json=pairs)
    ids = [each["request_id"] for each in batch.json()["results"]]
    assert len({batch.headers["x-request-id"], *ids}) == 3


@given(st.binary(max_size=200))
@example(b"")
@example(b"a" * 129)
@example(b"a\r\nset-cookie: x")
@example("é".encode())
@example(b"<script>")
def test_whatever_is_sent_for_a_name_a_header_comes_back(value: bytes) -> None:
    sent = told(Call([(b"x-request-id", value)]))["x-request-id"]
    assert re.fullmatch(r"[A-Za-z0-9._~:/+=@-]{1,128}", sent)
    assert sent == value.decode("latin-1") or MADE.fullmatch(sent)


@given(st.text("abcXYZ019._~:/+=@-", min_size=1, max_size=128))
def test_a_good_name_is_kept_unless_it_is_one_of_several(name: str) -> None:
    header = (b"x-request-id", name.encode())
    assert told(Call([header]))["x-request-id"] == name
    for several in (2, 3):
        assert told(Call([header] * several))["x-request-id"] != name


@pytest.mark.parametrize(
    "parent",
    [
        "",
        TRACE,
        PARENT.upper(),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        f"00-{TRACE}-{SPAN}-01" + "-" * 10_000,
    ],
)
def test_a_trace_that_is_none_is_replaced(parent: str) -> None:
    found = OURS.fullmatch(told(Call([(b"traceparent", parent.encode())]))["traceparent"])
    assert found is not None
    assert found[1] != TRACE
    assert found[3] == "00"


def test_a_later_version_is_joined_and_two_parents_are_none() -> None:
    later = f"cc-{TRACE}-{SPAN}-01-what.the.future-has".encode()
    assert TRACE in told(Call([(b"traceparent", later)]))["traceparent"]
    twice = [(b"traceparent", PARENT.encode())] * 2
    assert TRACE not in told(Call(twice))["traceparent"]


@given(st.binary(max_size=100))
def test_whatever_is_sent_for_a_trace_one_comes_back(value: bytes) -> None:
    found = OURS.fullmatch(told(Call([(b"traceparent", value)]))["traceparent"])
    assert found is not None
    assert found[1].strip("0")
    assert found[2].strip("0")


def test_log_lines_name_the_request_until_it_is_answered(capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    call = Call([(b"x-request-id", b"mine"), (b"traceparent", PARENT.encode())])
    mark = SUBJECT.set(call)
    try:
        configure_logging("info", json=True)
        structlog.get_logger("a").info("ours")
        logging.getLogger("b").info("theirs")
        call.over = True
        structlog.get_logger("a").info("later")
    finally:
        SUBJECT.reset(mark)
        logging.getLogger().handlers[:] = before
        structlog.reset_defaults()
    ours, theirs, later = map(json.loads, capfd.readouterr().err.splitlines())
    for line in (ours, theirs):
        assert (line["request_id"], line["trace_id"]) == ("mine", TRACE)
    assert "request_id" not in later


async def test_the_log_of_a_failure_has_the_name_that_the_client_got(
    capfd: pytest.CaptureFixture[str],
) -> None:
    broken = create_app(NOWHERE)

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("inside")

    broken.state.services.answerer.ask = fail
    broken.state.services.store.video = fail
    transport = httpx.ASGITransport(broken, raise_app_exceptions=False)
    before = logging.getLogger().handlers[:]
    try:
        configure_logging("error", json=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            answers = [await http.get(path) for path in ("/v1/queries?video_id=v", "/v1/videos/v")]
    finally:
        logging.getLogger().handlers[:] = before
        structlog.reset_defaults()
    logged = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["event"] for line in logged] == ["request_failed"] * 2
    assert [line["request_id"] for line in logged] == [
        answer.json()["request_id"] for answer in answers
    ]
