"""The judge knows what users would tap: the oracle's bar, always; nonsense, hardly ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.simulator import SimulatorConfig, load_truth, write_log
from stream.simulator.loop.judge import Judge
from stream.simulator.taps import examined


def test_the_oracles_first_is_tapped_and_nonsense_is_not(tmp_path: Path) -> None:
    truth = load_truth(write_log(SimulatorConfig(events=600), tmp_path / "log.jsonl"))
    judge = Judge(truth)
    users = list(truth.users)
    some = [video for video, said in truth.videos.items() if said.sensitive is None][:20]
    for at, video in enumerate(some):
        user = users[at % len(users)]
        bar = truth.oracle(video, user, 4)
        chances = judge.chances(video, user, bar)
        assert chances[0] == pytest.approx(1)
        assert all(0 <= chance <= examined(place) for place, chance in enumerate(chances))
        assert judge.chances(video, user, ["qqq zzz"])[0] < 0.01
        # The same query further down is looked at less.
        low = judge.chances(video, user, ["qqq zzz", bar[0]])
        assert low[1] == pytest.approx(examined(1))
    sensitive = [video for video, said in truth.videos.items() if said.sensitive is not None]
    for video in sensitive:
        assert judge.chances(video, users[0], ["anything"]) == [0.0]
    with pytest.raises(KeyError):
        judge.chances(some[0], "nobody", ["x"])
