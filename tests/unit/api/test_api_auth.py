"""API keys, scopes, the address the server may listen at, and rate limits."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from api.http.access import AccessControl, host_name
from api.http.auth import (
    ApiKeyError,
    KeyRing,
    UnsafeBindError,
    check_bind,
    parse_api_keys,
    presented_key,
)
from api.http.problems import ProblemError
from api.http.rate_limits import RateLimiter, SharedLimiter
from onebar.settings import Settings


def entry(key: str, scopes: str) -> str:
    return f"{scopes}:{hashlib.sha256(key.encode()).hexdigest()}"


def request(address: str = "10.0.0.1", **headers: str) -> dict[str, Any]:
    """An ASGI scope as far as the access looks."""
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"headers": named, "client": (address, 1234)}


def refused(access: AccessControl, scope: dict[str, Any], needed: Any = "read") -> ProblemError:
    with pytest.raises(ProblemError) as caught:
        access.admit(scope, needed)
    return caught.value


KEYS = KeyRing(parse_api_keys([entry("reader", "read"), entry("boss", "read+write+admin")]))


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    both = f"{entry('a', 'read')}, {entry('b', 'write+admin')}"
    monkeypatch.setenv("ONEBAR_API_KEYS", both)
    first, second = parse_api_keys(Settings().api_keys)
    assert first.scopes == {"read"}
    assert second.scopes == {"write", "admin"}
    monkeypatch.setenv("ONEBAR_API_KEYS", "")
    assert Settings().api_keys == ()


@pytest.mark.parametrize(
    ("malformed", "told"),
    [
        ("secret", "no scope"),
        (entry("k", "root"), "expected read, write, admin"),
        (entry("k", ""), "scope"),
        (entry("k", "read+"), "scope"),
        ("read:the-key-itself", "64 hex"),
        ("read:" + "g" * 64, "64 hex"),
    ],
)
def test_a_malformed_entry_is_named_and_not_repeated(malformed: str, told: str) -> None:
    with pytest.raises(ApiKeyError, match="entry 2 of ONEBAR_API_KEYS") as caught:
        parse_api_keys([entry("fine", "read"), malformed])
    assert told in str(caught.value)
    assert "the-key-itself" not in str(caught.value)


def test_a_key_listed_twice_is_refused() -> None:
    with pytest.raises(ApiKeyError, match="repeats"):
        parse_api_keys([entry("k", "read"), entry("k", "admin")])


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer boss"},
        {"authorization": "bearer  boss"},
        {"x_api_key": "boss"},
        {"authorization": "Basic eDp5", "x_api_key": "boss"},
    ],
)
def test_both_headers_carry_a_key(headers: dict[str, str]) -> None:
    assert AccessControl(KEYS).admit(request(**headers), "admin").scopes >= {"admin"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic boss"}, 401),
        ({"x_api_key": ""}, 401),
        ({"x_api_key": "Reader"}, 401),
        ({"x_api_key": "reader"}, 403),
    ],
)
def test_who_may_not_write(headers: dict[str, str], status: int) -> None:
    problem = refused(AccessControl(KEYS), request(**headers), "write")
    assert problem.status == status
    assert ("WWW-Authenticate" in problem.headers) == (status == 401)


def test_a_key_of_other_characters_is_hashed_as_sent() -> None:
    ring = KeyRing(parse_api_keys([entry("schlüssel", "read")]))
    assert ring.find(presented_key([(b"x-api-key", "schlüssel".encode())])) is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    check_bind(host, KeyRing())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.org", ""])
def test_beyond_loopback_keys_are_needed(host: str) -> None:
    with pytest.raises(UnsafeBindError, match="ONEBAR_API_KEYS"):
        check_bind(host, KeyRing())
    check_bind(host, KEYS)


@pytest.mark.parametrize(
    ("host", "name"),
    [("a:80", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("127.0.0.1:8080", "127.0.0.1")],
)
def test_the_name_in_a_host_header(host: str, name: str) -> None:
    assert host_name(host) == name


def test_without_keys_only_this_machines_names_are_served() -> None:
    access = AccessControl(KeyRing())
    for host in ("localhost:8080", "127.0.0.1", "[::1]:8080"):
        access.admit(request(host=host), "admin")
    misdirected = refused(access, request(host="evil.example:8080"))
    assert misdirected.status == 421
    assert b"not 'evil.example:8080'." in bytes(misdirected.response().body)
    assert refused(access, request(host="127.0.0.1.evil.example")).status == 421
    AccessControl(KEYS).admit(request(host="api.example", x_api_key="reader"), "read")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_empties_and_fills() -> None:
    clock = Clock()
    limiter = RateLimiter(2.0, clock=clock)
    assert [limiter.take("a") for _ in range(3)] == [0.0, 0.0, 0.5]
    assert limiter.take("b") == 0.0
    clock.now += 0.25
    assert limiter.take("a") == pytest.approx(0.25)
    clock.now += 0.25
    assert limiter.take("a") == 0.0
    clock.now += 1000
    assert [limiter.take("a") > 0 for _ in range(3)] == [False, False, True]


def test_less_than_one_a_second() -> None:
    clock = Clock()
    limiter = RateLimiter(0.1, clock=clock)
    assert limiter.take("a") == 0.0
    assert limiter.take("a") == pytest.approx(10.0)


def test_the_limiter_forgets_the_longest_unused() -> None:
    limiter = RateLimiter(1.0, max_callers=3, clock=Clock())
    for caller in "abcade":
        limiter.take(caller)
    assert len(limiter) == 3
    assert limiter.take("a") > 0
    assert limiter.take("b") == 0.0


class Bucket:
    """What all processes share, in the place of Redis: so many tokens, and no more."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.asked: list[int] = []
        self.away = False

    async def fetch(self, caller: str, wanted: int, owed: bool) -> tuple[int, float]:
        await asyncio.sleep(0)
        if self.away:
            raise ConnectionError("away")
        self.asked.append(wanted)
        granted = wanted if owed else max(0, min(wanted, self.tokens))
        self.tokens -= granted
        return granted, 0.0 if granted == wanted else 0.5


async def test_two_processes_allow_no_more_than_one() -> None:
    bucket = Bucket(10)
    limiters = [SharedLimiter(10.0, bucket.fetch, clock=Clock()) for _ in range(2)]
    waits = await asyncio.gather(*(limiters[n % 2].take("a") for n in range(22)))
    assert waits.count(0.0) == 10
    assert all(wait == pytest.approx(0.5) for wait in waits if wait)
    asked = len(bucket.asked)
    assert await limiters[0].take("a") > 0
    assert len(bucket.asked) == asked  # who has been refused does not ask again at once


async def test_tokens_are_fetched_ahead_and_not_kept() -> None:
    clock, bucket = Clock(), Bucket(1000)
    limiter = SharedLimiter(200.0, bucket.fetch, clock=clock)
    for _ in range(11):
        assert await limiter.take("a") == 0.0
    assert bucket.asked == [11]
    assert await limiter.take("a") == 0.0
    clock.now += 1
    assert await limiter.take("a") == 0.0
    assert bucket.asked == [11, 11, 11]
    await limiter.owe("a", 255)
    assert bucket.tokens == 1000 - 33 - 255


async def test_without_the_bucket_each_process_counts_by_itself() -> None:
    bucket = Bucket(1000)
    bucket.away = True
    limiter = SharedLimiter(2.0, bucket.fetch, clock=Clock())
    assert [await limiter.take("a") > 0 for _ in range(3)] == [False, False, True]
    await limiter.owe("a", 5)


async def test_limits_are_by_key_or_by_address() -> None:
    async def fetch(caller: str, wanted: int, owed: bool) -> tuple[int, float]:
        names.append(caller)
        return (0, 0.2) if names.count(caller) > 1 else (1, 0.0)

    names: list[str] = []
    access = AccessControl(KEYS, SharedLimiter(1.0, fetch, clock=Clock()))

    async def ask(scope: dict[str, Any]) -> None:
        await access.limit(scope, access.admit(scope, "read"))

    await ask(request("10.0.0.1", x_api_key="reader"))
    with pytest.raises(ProblemError) as caught:
        await ask(request("10.0.0.2", x_api_key="reader"))
    assert caught.value.status == 429
    assert caught.value.headers["Retry-After"] == "1"
    await ask(request("10.0.0.1", x_api_key="boss"))
    assert refused(access, request("10.0.0.3", x_api_key="guess-1")).status == 401
    assert refused(access, request("10.0.0.3", x_api_key="guess-2")).status == 429
