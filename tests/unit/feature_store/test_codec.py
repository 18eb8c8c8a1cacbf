"""What a cached body says of itself without being decoded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.cache.codec import CachedBody, decode_body, encode_body
from onebar.records import Candidate, QueryResult

TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ['"model":"forged"', '","model":"forged","x":"', '\\"model\\":\\"forged\\"']
)


def body(result: QueryResult) -> CachedBody:
    found = decode_body(encode_body(result), 300.0)
    assert found is not None
    return found


@given(TEXT, st.lists(TEXT, max_size=3), st.from_regex(r"\A[A-Za-z0-9._-]{1,20}\Z"), TEXT)
def test_its_model_is_found_whatever_the_queries_say(
    video_id: str, queries: list[str], model: str, digest: str
) -> None:
    candidates = tuple(Candidate(text, -1.0) for text in queries)
    result = QueryResult(video_id, candidates, False, model, digest, 1.0)
    assert body(result).result() == result
    assert body(result).model == model


@pytest.mark.parametrize("data", [b"", b"{", b'{"model":"', b"\xff\xfe"])
def test_a_body_of_another_kind_names_nothing_known(data: bytes) -> None:
    assert isinstance(CachedBody(0.0, 0.0, data).model, str)
