"""What `onebar doctor` finds, and `onebar status` tells, without a server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from onebar.settings import Settings
from onebar.stack.doctor import here
from onebar.stack.doctor.examination import WrongApiError, readiness
from onebar.stack.status import Api, Group, Status, rows, sources, status
from stream.events import BEHAVIORS, DEAD_LETTERS, VIDEOS
from stream.kafka.facts import Member, TopicFacts, topic_faults
from stream.kafka.topics import TOPICS

NOWHERE = "127.0.0.1:9"
SPECS = {spec.name: spec for spec in TOPICS}


@pytest.mark.parametrize("name", SPECS)
def test_a_topic_as_we_make_it_has_no_faults(name: str) -> None:
    spec = SPECS[name]
    assert topic_faults(spec, TopicFacts(4, 3, spec.config | {"min.insync.replicas": "2"}), 3) == []
    assert topic_faults(spec, TopicFacts(4, 1, None), 1) == [], "a broker that tells nothing"


@pytest.mark.parametrize(
    ("name", "facts", "told"),
    [
        (VIDEOS, TopicFacts(4, 1, {"cleanup.policy": "delete"}), "cleanup.policy is delete"),
        (BEHAVIORS, TopicFacts(4, 1, {"retention.ms": "1000"}), "retention.ms is 1000"),
        (DEAD_LETTERS, TopicFacts(4, 1, {"max.message.bytes": "10"}), "max.message.bytes"),
        (BEHAVIORS, TopicFacts(4, 3, {"min.insync.replicas": "1"}), "min.insync.replicas is 1"),
    ],
)
def test_a_topic_that_loses_records_is_told(name: str, facts: TopicFacts, told: str) -> None:
    [fault] = topic_faults(SPECS[name], facts, brokers=1)
    assert told in fault


def test_more_than_we_ask_for_is_fine_and_one_copy_of_three_is_not() -> None:
    kept = {"retention.ms": "-1"}
    assert topic_faults(SPECS[BEHAVIORS], TopicFacts(4, 3, kept), 3) == []
    [fault] = topic_faults(SPECS[BEHAVIORS], TopicFacts(4, 1, kept), 3)
    assert "one copy" in fault


@contextmanager
def answering(raw: bytes) -> Iterator[str]:
    """Whoever asks gets these bytes; the URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(raw)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


HEAD = b"HTTP/1.0 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    "raw", [b"-ERR unknown command\r\n", HEAD, HEAD + b"<html>", HEAD + b"[]", HEAD + b"{}"]
)
async def test_what_is_no_api_is_neither_ready_nor_a_traceback(raw: bytes) -> None:
    with answering(raw) as url:
        with pytest.raises(WrongApiError, match=url):
            readiness(url, Settings())
        found = await status(Settings(kafka_bootstrap=NOWHERE, redis_url=f"redis://{NOWHERE}"), url)
    assert not found.well
    assert url in found.missing["api"]


def names(**settings: object) -> dict[str, str]:
    found = here.security(Settings(**settings))  # type: ignore[arg-type]
    return {finding.name: finding.mark for finding in found}


def test_connections_beyond_this_machine_are_looked_at() -> None:
    assert names() == {"api keys": "ok"}
    beyond = names(
        kafka_bootstrap="kafka:9092", redis_url="redis://redis:6379/0", api_host="0.0.0.0"
    )
    assert beyond == {
        "api keys": "FAIL",
        "kafka tls": "warn",
        "redis tls": "warn",
        "redis password": "warn",
    }
    safe = names(
        kafka_bootstrap="kafka:9093",
        kafka_security_protocol="SSL",
        redis_url="rediss://redis:6380/0",
        redis_password="p",
    )
    assert safe == {"api keys": "ok"}
    assert names(redis_url="redis+sentinel://127.0.0.1:1,[::1]:2/mymaster") == {"api keys": "ok"}
    assert names(api_keys="read:not-a-hash") == {"api keys": "FAIL"}
    served = names(api_host="0.0.0.0", api_keys="read:" + "0" * 64)
    assert served == {"api keys": "ok", "api tls": "warn"}


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings = Settings(index=tmp_path / "to" / "come" / "index")
    [finding] = here.disks(settings)
    assert finding.mark == "ok"
    monkeypatch.setattr(here, "LEAST_FREE", 2**80)
    assert {finding.mark for finding in here.disks(settings)} == {"warn"}


def test_where_answers_came_from() -> None:
    shown = "\n".join(
        [
            'onebar_answers_total{fallback="",source="cache"} 70.0',
            'onebar_answers_total{fallback="",source="generated"} 1e+01',
            'onebar_answers_total{fallback="video",source="fallback"} 15.0',
            'onebar_answers_total{fallback="none",source="fallback"} 5.0',
            'onebar_answers_created{fallback="none",source="fallback"} 1.7e+09',
        ]
    )
    assert sources(shown) == {"cache": 0.7, "generated": 0.1, "fallback": 0.2}
    assert sources("") == {}


def test_a_status_is_well_or_says_what_is_not() -> None:
    stream = Group("stream", 3, {"t/0": 1, "t/1": 2}, [Member("10.0.0.1", "c", ("t/0", "t/1"))])
    found = Status(
        "1.0",
        "g1",
        groups=[stream],
        dead_letters=2,
        rules=1,
        lost=None,
        redis=None,
        checkpoint="demo",
        api=Api("http://h:1", True, "demo", {"cache": 0.9, "generated": 0.1}),
    )
    assert found.well
    told = dict(rows(found))
    assert told["stream"] == "1 running, 3 behind, most in t/1 (2)"
    assert told[""] == "10.0.0.1: t/0, t/1"
    assert told["api"] == "http://h:1 is ready with demo; answers: 90% cache, 10% generated"
    assert "redis" not in told
    silent = Group("stream", 0, {}, [Member("", "", ())])
    told = dict(rows(Status("1.0", "g1", groups=[silent])))
    assert told["stream"].startswith("1 running")
    assert "" not in told, "a broker that says no more than that there is one"

    change = msgspec.structs.replace
    assert not change(found, lost="some of it").well
    assert not change(found, missing={"kafka": "away"}).well
    assert not change(found, groups=[change(stream, members=[])]).well
    assert change(found, groups=[change(stream, members=None)]).well, "a broker that does not tell"
    ill = change(found, api=Api("http://h:1", False, said="redis: away"), missing={"kafka": "away"})
    assert not ill.well
    assert dict(rows(ill))["api"] == "http://h:1 is NOT READY: redis: away"
    assert dict(rows(ill))["kafka"] == "UNKNOWN: away"
    bare = Status("1.0", "g1", missing={"kafka": "away"})
    assert list(msgspec.to_builtins(bare)) == ["version", "state_version", "missing"]
