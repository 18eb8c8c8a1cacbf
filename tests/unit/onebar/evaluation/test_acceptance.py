"""Whether a candidate may serve: every way of getting worse is found, and told; better passes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from msgspec.structs import replace

from onebar.evaluation.comparing.acceptance import Bounds, accept
from onebar.evaluation.predict import Prediction
from onebar.evidence.text import REJECT
from onebar.triggers import EmptyDatasetError, Shown, Trigger

EXAMINED = (1.0, 0.7, 0.5, 0.35)
WANTED = {"red boots": 0.5, "boots cheap": 0.3, "boots": 0.1, "boots red cheap": 0.02}
TEXT = "boots red cheap"


def world(count: int = 600, seed: int = 1) -> list[Trigger]:
    """A log of bars in any order, tapped by the item-position model, and some that must be none."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        common = {"trigger_id": f"t{number}", "ts": float(number), "text": TEXT}
        if number % 10 == 0:
            found.append(Trigger(kind="reject", video_id="bad", target=REJECT, **common))  # type: ignore[arg-type]
            continue
        order = [str(query) for query in rng.permutation(list(WANTED))]
        looks = rng.random(4)
        taps = [looks[p] < EXAMINED[p] * WANTED[q] for p, q in enumerate(order)]
        first = next((at for at, tap in enumerate(taps) if tap), None)
        found.append(
            Trigger(
                kind="shown" if first is None else "click",
                video_id=f"v{number % 5}",
                user_id=f"u{number % 60}",
                target="" if first is None else order[first],
                shown=tuple(Shown(q, p, p == first) for p, q in enumerate(order)),
                **common,  # type: ignore[arg-type]
            )
        )
    return found


class Model:
    """Answers by a rule."""

    def __init__(self, name: str, answer: Callable[[Trigger], Sequence[str]], wait_s: float = 0.0):
        self.name = name
        self._answer = answer
        self._wait_s = wait_s

    def predict(self, triggers: Sequence[Trigger], k: int) -> list[Prediction]:
        time.sleep(self._wait_s)
        answers = [tuple(self._answer(trigger)) for trigger in triggers]
        return [Prediction(queries, not queries) for queries in answers]


def safe(*queries: str) -> Callable[[Trigger], Sequence[str]]:
    return lambda trigger: () if trigger.kind == "reject" else queries


GOOD = safe("red boots", "boots cheap", "boots")
POOR = safe("boots red cheap", "boots")
TRIGGERS = world()


def refused(answer: Callable[[Trigger], Sequence[str]], **more: float) -> dict[str, str]:
    found = accept(Model("old", GOOD), Model("new", answer, **more), TRIGGERS)
    assert found.accepted is (not found.reasons)
    assert found.reasons == tuple(
        f"{name}: {check.reason}" for name, check in found.checks.items() if not check.passed
    )
    return {name: check.reason for name, check in found.checks.items() if not check.passed}


def test_a_better_one_is_accepted_and_so_is_the_same() -> None:
    found = accept(Model("old", POOR), Model("new", GOOD), TRIGGERS)
    assert found.accepted
    assert found.reasons == ()
    assert found.shadow.taps.per_impression.low > 0
    assert refused(GOOD) == {}


def test_fewer_taps() -> None:
    told = refused(POOR)
    assert set(told) == {"taps"}
    assert "taps an impression" in told["taps"]


def test_a_bar_that_falls_silent() -> None:
    told = refused(lambda trigger: () if trigger.video_id == "v0" else GOOD(trigger))
    assert "rejects" in told
    assert "impressions without a query: 0.00% before, 11.11% now" in told["rejects"]


def test_a_bar_that_speaks_where_it_must_not() -> None:
    told = refused(lambda trigger: ("red boots", "boots cheap", "boots"))
    assert set(told) == {"unsafe"}
    assert "0.00% before, 100.00% now" in told["unsafe"]


def test_another_script() -> None:
    told = refused(lambda trigger: (*GOOD(trigger), *safe("красные сапоги")(trigger)))
    assert "language" in told
    assert "another script" in told["language"]


def test_words_from_nowhere() -> None:
    told = refused(lambda trigger: (*GOOD(trigger), *safe("eyeshadow palette")(trigger)))
    assert set(told) == {"grounding"}


def test_the_users_own_words_are_not_from_nowhere() -> None:
    """What somebody says of everything is no evidence of a video, but it is theirs."""
    mine = safe("red boots", "vintage boots cheap", "boots")
    assert "grounding" in refused(mine)
    own = [replace(trigger, recent=("vintage lamp",)) for trigger in TRIGGERS]
    found = accept(Model("old", GOOD), Model("new", mine), own)
    assert found.checks["grounding"].passed


def test_one_that_takes_its_time() -> None:
    told = refused(GOOD, wait_s=2.0)
    assert set(told) == {"latency"}
    assert "is allowed" in told["latency"]


def test_bounds_are_the_operators() -> None:
    wide = Bounds(grounding=1.0, language=1.0, rejects=1.0, unsafe=1.0, latency=1e9, taps=1.0)
    loose = Model("new", lambda trigger: ("red boots", "boots cheap", "boots", "Новые огни"))
    assert accept(Model("old", GOOD), loose, TRIGGERS, bounds=wide).accepted
    assert not accept(Model("old", GOOD), loose, TRIGGERS).accepted
    # What is surely worse is refused whatever may be lost.
    assert not accept(Model("old", GOOD), Model("new", POOR), TRIGGERS, bounds=wide).accepted


def test_too_little_to_tell_falls_back_on_the_logged_clicks() -> None:
    few = world(60)
    found = accept(Model("old", safe("red boots")), Model("new", safe("boots")), few)
    assert not found.shadow.taps.new.conclusive
    assert "HR@8" in found.checks["taps"].reason
    with pytest.raises(EmptyDatasetError):
        accept(Model("old", GOOD), Model("new", GOOD), [])
