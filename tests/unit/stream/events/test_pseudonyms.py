"""A keyed hash in the place of a user's id: the same at every door, and of every event."""

from __future__ import annotations

import base64
import hashlib
import hmac

from event_strategies import events
from hypothesis import given
from hypothesis import strategies as st

from stream.events import Event, encode, parse
from stream.events.pseudonyms import NONE, Pseudonyms
from stream.kafka.records import Record, event_in
from stream.workers.ingest import to_writes

KEY = "0123456789abcdef0123"
ONES = Pseudonyms(KEY)


def test_it_is_what_the_docs_say_so_that_a_feed_can_compute_it() -> None:
    digest = hmac.new(KEY.encode(), b"u7", hashlib.sha256).digest()[:16]
    assert ONES.of("u7") == "~" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
    assert len(ONES.of("u7")) == 23


@given(st.text(min_size=1, max_size=256))
def test_a_pseudonym_tells_nothing_and_stays(user_id: str) -> None:
    pseudonym = ONES.of(user_id)
    assert ONES.of(pseudonym) == pseudonym
    assert pseudonym == user_id or user_id not in pseudonym or len(user_id) < 4
    assert NONE.of(user_id) == user_id
    assert not NONE
    assert Pseudonyms("another key of theirs").of(user_id) != pseudonym or pseudonym == user_id


@given(events())
def test_of_an_event_nothing_else_changes(event: Event) -> None:
    changed = ONES.event(event)
    user = getattr(event, "user_id", None)
    assert NONE.event(event) is event
    if isinstance(user, str):
        assert changed.user_id == ONES.of(user)  # type: ignore[union-attr]
    plain, hashed = (vars_of(each) for each in (event, changed))
    assert {name for name in plain if plain[name] != hashed[name]} <= {"user_id"}
    assert parse(encode(changed)) == changed


def vars_of(event: Event) -> dict[str, object]:
    return {name: getattr(event, name) for name in event.__struct_fields__}


@given(events())
def test_whoever_puts_it_into_kafka_the_state_is_the_same(event: Event) -> None:
    """The feed itself, or the API that has pseudonymised it."""

    def of(sent: Event) -> object:
        record = Record(sent.topic, 0, 1, sent.ts, sent.key.encode(), encode(sent))
        assert ONES.event(event_in(record)) == event_in(record, ONES)
        return to_writes(record, 60.0, ONES)

    assert of(event) == of(ONES.event(event))
