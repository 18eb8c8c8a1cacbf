"""Exploration: reproducible, told, fair, and of nothing but what was there."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from api.answering.explore import Exploration, explored
from api.answering.forms import CACHED, Ask, fields_of, values_of
from api.http.schemas import Answer
from feature_store.cache.codec import decode_body, encode_body
from onebar.gating.gate import PINNED_SCORE
from onebar.records import Candidate, QueryResult

sizes = st.integers(0, 12)


def made(count: int) -> list[Candidate]:
    return [Candidate(f"q{number}", -1.0 - number) for number in range(count)]


@given(sizes, st.integers(1, 10), st.integers(0, 10), st.floats(0, 1, exclude_max=True), st.text())
def test_the_same_answer_again_and_only_two_change_places(
    count: int, k: int, slot: int, share: float, request_id: str
) -> None:
    queries = made(count)
    terms = Exploration(share, slot)
    shown = explored(queries, k, terms, request_id)
    assert shown == explored(queries, k, terms, request_id)
    assert len(shown) == min(k, count)
    texts = [query.text for query in shown]
    assert len(set(texts)) == len(texts)
    assert set(texts) <= {query.text for query in queries}
    moved = [at for at, query in enumerate(shown) if query.text != queries[at].text]
    assert len(moved) in (0, 1, 2)
    assert not moved or moved[0] == slot
    assert all(query.propensity is UNSET for query in shown[:slot])
    for query in shown:
        assert query.propensity is UNSET or 0 < query.propensity <= 1


def test_what_is_told_is_how_often_it_happens() -> None:
    queries, k = made(7), 5
    terms = Exploration(0.4, 2)
    many = 20_000
    seen: dict[int, Counter[str]] = defaultdict(Counter)
    told: dict[tuple[int, str], float] = {}
    for number in range(many):
        for at, query in enumerate(explored(queries, k, terms, f"request-{number}")):
            seen[at][query.text] += 1
            told[at, query.text] = 1.0 if query.propensity is UNSET else query.propensity
    for at in range(k):
        assert sum(p for (place, _), p in told.items() if place == at) == pytest.approx(1.0)
        for text, count in seen[at].items():
            assert count / many == pytest.approx(told[at, text], abs=0.015)
    # Those that are kept behind the bar come up as well.
    assert {"q5", "q6"} <= seen[2].keys()


def test_off_it_says_nothing() -> None:
    queries = made(8)
    for terms in (Exploration(0.0, 1), Exploration(0.9, 7), Exploration(0.9, 30)):
        assert explored(queries, 8, terms, "r") == tuple(queries)


def test_a_pinned_query_gives_way_to_nobody() -> None:
    queries = [Candidate("pinned", PINNED_SCORE), *made(5)]
    for number in range(50):
        assert explored(queries, 6, Exploration(0.99, 0), str(number)) == tuple(queries)


def test_a_cached_body_is_explored_by_the_id_of_the_answer() -> None:
    kept = QueryResult("v", tuple(made(6)), False, "m", "d", 7.0)
    body = decode_body(encode_body(kept), 60.0)
    assert body is not None
    terms = Exploration(0.9, 1)
    asks = Ask(0.0, k=4, exploration=terms), Ask(0.0, k=4)
    for _ in range(20):
        form = CACHED % values_of([(("v", "u"), body)], asks[0], 8.0)
        answer = msgspec.json.decode(form, type=Answer)
        assert answer.queries == explored(kept.queries, 4, terms, answer.request_id)
    plain = msgspec.json.decode(CACHED % values_of([(("v", "u"), body)], asks[1], 8.0), type=Answer)
    assert plain.queries == kept.queries[:4]
    assert b"propensity" not in CACHED % values_of([(("v", "u"), body)], asks[1], 8.0)


@given(
    st.none() | st.integers(1, 8),
    st.none() | st.just(Exploration(0.9, 1)),
    st.none() | st.text(max_size=5),
    st.floats(0, 20),
)
def test_a_pair_alone_is_answered_as_in_a_batch_but_for_its_name(
    k: int | None, terms: Exploration | None, user: str | None, now: float
) -> None:
    kept = QueryResult("v", tuple(made(6)), False, "m", "d", 7.0)
    body = decode_body(encode_body(kept), 60.0)
    assert body is not None
    ask = Ask(0.0, k=k or (6 if terms else None), exploration=terms, named=b"0" * 24)
    alone, together = (
        msgspec.json.decode(CACHED % values, type=Answer)
        for values in (
            fields_of(("v", user), body, ask, now),
            values_of([(("v", user), body)], ask, now),
        )
    )
    assert alone.request_id == "0" * 24
    if terms is None:
        assert msgspec.structs.replace(together, request_id=alone.request_id) == alone
    else:
        assert alone.queries == explored(kept.queries, ask.k or 6, terms, alone.request_id)
