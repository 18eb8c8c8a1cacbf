"""Values are kept where that pays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feature_store.cache.admission import LEAST_AT_HAND, REST, Admission


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_a_trial_is_judged_by_the_share_at_hand(at_hand: int, read: int) -> None:
    trial = Admission()
    trial.at_hand(at_hand)
    trial.read(read)
    share = trial.judge()
    assert 0 <= share <= 1
    assert trial.admitting == (share >= LEAST_AT_HAND)
    if at_hand + read:
        assert share == at_hand / (at_hand + read)


@given(st.integers(1, 100))
def test_a_rest_ends_after_so_many(read: int) -> None:
    trial = Admission()
    trial.read(read)
    assert trial.judge() == 0
    trial.read(REST * read - 1)
    assert not trial.admitting
    trial.read(1)
    assert trial.admitting
    trial.at_hand(1)
    assert trial.judge() == 1
    assert trial.admitting
