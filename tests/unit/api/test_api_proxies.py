"""Who asks, where proxies stand between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.http.access import AccessControl
from api.http.auth import KeyRing
from api.http.problems import ProblemError
from api.http.proxies import TRACES, Proxies


def request(peer: str, *headers: tuple[str, str]) -> dict[str, Any]:
    named = [(name.encode(), value.encode()) for name, value in headers]
    return {"headers": [(b"host", b"localhost:8080"), *named], "client": (peer, 5000)}


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        ("198.51.100.7", ["203.0.113.5"], "198.51.100.7"),  # nobody's proxy
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.5"], "203.0.113.5"),  # the first is anybody's word
        ("10.0.0.1", ["203.0.113.5, 10.0.0.9"], "203.0.113.5"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.5:4711"], "203.0.113.5"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["nonsense"], "unknown"),
        ("10.0.0.1", [""], "unknown"),
        ("::ffff:10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
    ],
)
def test_the_caller_is_the_last_who_is_no_proxy_of_ours(
    peer: str, forwarded: list[str], caller: str
) -> None:
    proxies = Proxies(["10.0.0.0/24"])
    headers = [("x-forwarded-for", value) for value in forwarded]
    assert proxies.caller(request(peer, *headers)) == caller


def admitted(scope: dict[str, Any], *proxies: str) -> bool:
    access = AccessControl(KeyRing(), None, Proxies(proxies))
    try:
        access.admit(scope, "admin")
    except ProblemError as problem:
        return problem.status != 421 or "ONEBAR_API_KEYS" not in str(problem.response().body)
    return True


@pytest.mark.parametrize("name", sorted(TRACES))
def test_without_keys_what_came_through_a_proxy_is_refused(name: bytes) -> None:
    assert admitted(request("127.0.0.1"))
    assert not admitted(request("127.0.0.1", (name.decode(), "127.0.0.1")))


def test_a_trusted_proxy_may_pass_on_this_machine_alone() -> None:
    def through(forwarded: str) -> dict[str, Any]:
        return request("127.0.0.1", ("x-forwarded-for", forwarded), ("via", "1.1 here"))

    assert admitted(through("127.0.0.1"), "127.0.0.1")
    assert admitted(through("::1"), "127.0.0.1")
    assert not admitted(through("203.0.113.5"), "127.0.0.1")
    assert not admitted(through("127.0.0.1, 203.0.113.5"), "127.0.0.1")
    assert not admitted(through(""), "127.0.0.1")
    assert not admitted(request("127.0.0.1", ("forwarded", "for=127.0.0.1")), "127.0.0.1")


@given(
    st.lists(st.text(max_size=20).filter(lambda text: text.isprintable()), min_size=1, max_size=4)
)
def test_whatever_is_written_into_the_header_nobody_from_beyond_passes(values: list[str]) -> None:
    """The proxy puts who called it behind whatever the caller wrote."""
    written = ", ".join([*values, "203.0.113.5"])
    scope = request("127.0.0.1")
    scope["headers"].append((b"x-forwarded-for", written.encode("latin-1", "replace")))
    assert Proxies(["127.0.0.0/8"]).caller(scope) == "203.0.113.5"
    assert not admitted(scope, "127.0.0.0/8")
