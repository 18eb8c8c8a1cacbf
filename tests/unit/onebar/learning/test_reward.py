"""What lists of written queries are worth: taps, less what must not stand in a bar."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from onebar.gating.risk import shipped_rules
from onebar.learning import reward
from onebar.learning.reward import RewardConfig, TapReward
from onebar.recommending.material import Material
from onebar.recommending.pool import Taste
from onebar.recommending.ranker import Proposal, shipped_ranker
from onebar.records import Candidate
from onebar.triggers import Trigger

TRIGGER = Trigger(trigger_id="t", kind="click", ts=1.0, video_id="v", text="trail running shoes")


class Even:
    """Everything is tapped one time in two."""

    digest = "even"
    variety = 0.0
    beam = 8

    def scores(self, proposals: Sequence[Proposal], material: Material) -> list[float]:
        return [0.0] * len(proposals)


@pytest.fixture
def even(monkeypatch: pytest.MonkeyPatch) -> TapReward:
    card = SimpleNamespace(training={"clicks": {"propensity": [1.0, 0.5]}})
    named: Any = SimpleNamespace(name="tiny-0", card=card)
    taste = Taste(shipped_ranker(), shipped_rules(), scorer=Even())
    monkeypatch.setattr(reward, "open_taste", lambda checkpoint: taste)
    return TapReward(named, RewardConfig(refused=0.25, variety=1.0))


def lists(*texts: Sequence[str]) -> list[list[Candidate]]:
    return [[Candidate(text, -1.0 - at) for at, text in enumerate(each)] for each in texts]


def test_a_list_is_worth_the_taps_that_it_would_get(even: TapReward) -> None:
    found = even(TRIGGER, lists(("trail shoes", "running shoes"), ("running shoes", "trail shoes")))
    assert found.queries == ((0.5, 0.5), (0.5, 0.5))
    assert 0.5 < found.lists[0] < 0.75
    assert found.lists[0] == pytest.approx(found.lists[1])
    assert found.allowed == 1.0


def test_what_was_said_already_is_worth_nothing_more(even: TapReward) -> None:
    found = even(TRIGGER, lists(("trail shoes", "trail shoes"), ("trail shoes", "running shoes")))
    assert found.lists[0] == 0.5 < found.lists[1]


@pytest.mark.parametrize("text", ["", "[REJECT]", "�", "pressure cooker", "shoes shoes"])
def test_what_would_not_be_shown_costs(even: TapReward, text: str) -> None:
    found = even(TRIGGER, lists((text, "trail shoes")))
    assert found.queries == ((-0.25, 0.5),)
    assert found.lists == (pytest.approx(-0.25 + 0.5 * 0.5),)
    assert found.allowed == 0.5
