"""Post-checks and the rejection rule."""

from __future__ import annotations

import pytest

from onebar.recommending.candidates import MAX_CANDIDATE_CHARS, REJECT, decide, presentable
from onebar.records import Candidate


@pytest.mark.parametrize(
    "text",
    ["", "  ", "?!", "a\ufffdb", "x [SEP] y", "[reject]", "</s>", "x" * (MAX_CANDIDATE_CHARS + 1)],
)
def test_what_must_not_be_shown(text: str) -> None:
    assert presentable(text) == ""


def test_queries_keep_their_order_and_come_once() -> None:
    texts = ["Red Shoes", "red  shoes", "", "blue shoes", "a\ufffd", "green shoes"]
    generated = [Candidate(text, -float(i)) for i, text in enumerate(texts)]
    queries, rejected = decide(generated, 2)
    assert not rejected
    assert queries == (Candidate("red shoes", 0.0), Candidate("blue shoes", -3.0))


def test_rejected_when_the_best_is_reject_or_nothing_may_be_shown() -> None:
    reject, shoes = Candidate(REJECT, -0.1), Candidate("shoes", -0.5)
    assert decide([reject, shoes], 8) == ((), True)
    assert decide([shoes, reject], 8) == ((shoes,), False)
    assert decide([], 8) == ((), True)
    assert decide([Candidate("a\ufffd", -0.1), reject], 8) == ((), True)
