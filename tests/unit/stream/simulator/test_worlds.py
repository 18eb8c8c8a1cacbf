"""What a world may have besides: a head, weary users, new names, a shift of the trend, wrong
clocks. What it has not leaves its bytes as they were."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from stream.events import Click, Event, Impression, Search, Video, encode, parse
from stream.simulator import (
    LANGS,
    Lang,
    SimulatorConfig,
    SimulatorConfigError,
    config_of,
    load_truth,
    simulate,
    write_log,
)
from stream.simulator.taps import weariness
from stream.simulator.texts.lexicon import load_lexicon, new_things, world_lexicon
from stream.simulator.users import PASSED_OVER_LIMIT, User, make_user
from stream.simulator.world import World

OLD_WORLDS: dict[Lang, tuple[str, str]] = {
    "en": ("6de5de74b48c9900", "cb164b3c102ce9d7"),
    "zh": ("01e096eb802cb023", "aa7972069331153f"),
}
"""Of `SimulatorConfig(events=3000, seed=5)`: log and truth, as they were before there were any of
these options."""


@pytest.mark.parametrize("lang", LANGS)
def test_a_world_without_them_has_the_bytes_it_always_had(lang: Lang, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    truth = write_log(SimulatorConfig(events=3000, lang=lang, seed=5), log)
    found = tuple(hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in (log, truth))
    assert found == OLD_WORLDS[lang]


shares = st.floats(0, 1)
worlds = st.builds(
    SimulatorConfig,
    events=st.integers(1, 250),
    seed=st.integers(0, 2**31),
    lang=st.sampled_from(LANGS),
    days=st.floats(0.01, 30),
    video_zipf=st.floats(0, 3),
    query_zipf=st.floats(0, 3),
    fatigue=shares,
    new_things=shares,
    shift_day=st.floats(0, 30),
    shift=shares,
    skewed_clients=shares,
    skew_s=st.floats(0, 1e6),
    course=st.integers(0, 3),
)


@settings(max_examples=20, deadline=None)
@given(worlds)
def test_same_options_same_valid_events(config: SimulatorConfig) -> None:
    first = [encode(event) for event in simulate(config)]
    assert first == [encode(event) for event in simulate(config)]
    assert len(first) == config.events
    events = [parse(line) for line in first]
    assert len({event.event_id for event in events}) == config.events
    assert all(0 <= event.ts <= config.end_ts for event in events)
    videos = {event.video_id for event in events if isinstance(event, Video)}
    assert {e.video_id for e in events if isinstance(e, Impression)} <= videos


def run(**changes: Any) -> list[Event]:
    return list(simulate(SimulatorConfig(events=20_000, seed=3, **changes)))


def head_of(counts: Counter[str]) -> float:
    """The share of the most frequent hundredth."""
    most = counts.most_common(max(1, len(counts) // 100))
    return sum(count for _, count in most) / counts.total()


def test_a_head_of_videos_and_of_queries() -> None:
    def counts(events: list[Event]) -> tuple[Counter[str], Counter[str]]:
        seen = Counter(e.video_id for e in events if isinstance(e, Impression))
        return seen, Counter(e.query for e in events if isinstance(e, (Search, Click)))

    flat, flat_queries = counts(run())
    steep, steep_queries = counts(run(video_zipf=1.0, query_zipf=1.0))
    assert head_of(flat) < 0.08
    assert head_of(steep) > 0.2
    assert head_of(steep_queries) > 1.5 * head_of(flat_queries)
    # The r-th has about 1/r of the first: between the 1st and the 100th lies a factor of tens.
    ranked = [count for _, count in steep.most_common(100)]
    assert ranked[0] > 15 * ranked[-1]


@given(st.lists(st.tuples(st.lists(st.sampled_from("abcde"), max_size=4), st.booleans())))
def test_weariness_counts_what_was_passed_over_since_the_last_tap(
    bars: list[tuple[list[str], bool]],
) -> None:
    user = make_user(SimulatorConfig(), load_lexicon("en"), "somebody")
    times: Counter[str] = Counter()
    for shown, tap in bars:
        shown = list(dict.fromkeys(shown))
        tapped = shown[0] if tap and shown else None
        user.pass_over(shown, tapped)
        for text in shown:
            times[text] = 0 if text == tapped else times[text] + 1
    for text in "abcde":
        assert weariness(user, text, 0.25) == pytest.approx(0.75 ** times[text])
        assert weariness(user, text, 0.0) == 1.0


def test_what_is_passed_over_is_bounded() -> None:
    user = User("u", make_user(SimulatorConfig(), load_lexicon("en"), "u").traits, (0,))
    for number in range(3 * PASSED_OVER_LIMIT):
        user.pass_over((str(number),), None)
    assert len(user.passed_over) == PASSED_OVER_LIMIT


@pytest.mark.parametrize("lang", LANGS)
def test_new_things_come_up_at_the_shift_and_lead(lang: Lang, tmp_path: Path) -> None:
    config = SimulatorConfig(
        events=12_000, lang=lang, new_things=0.1, shift_day=3.5, shift=0.5, query_zipf=1.0
    )
    lexicon = world_lexicon(config)
    old = load_lexicon(lang)
    new = new_things(config, len(old.products))
    assert len(new) == round(0.1 * len(old.products))
    for product in lexicon.products:
        known = old.products[product.index]
        assert (product.names == known.names) is (product.index not in new)
    names = {name.lower() for index in new for name in lexicon.products[index].names}
    every = {name.lower() for product in old.products for name in product.names}
    assert not names & every

    log = tmp_path / "log.jsonl"
    truth = load_truth(write_log(config, log))
    shift_ts = config.shift_ts
    assert shift_ts is not None
    about = {each.name for each in lexicon.products if each.index in new}
    before, after = Counter[bool](), Counter[bool]()
    for line in log.read_bytes().splitlines():
        event = parse(line)
        if isinstance(event, Video) and event.video_id in truth.videos:
            is_new = truth.videos[event.video_id].product in about
            (before if event.ts < shift_ts else after)[is_new] += 1
    assert before[True] == 0
    assert after[True] > 0.3 * after.total()
    video_id = next(
        v for v, told in truth.videos.items() if told.product in about and not told.sensitive
    )
    assert truth.relevance(video_id, truth.videos[video_id].product) == 3


def test_a_wrong_clock_is_a_users_own_and_bounded() -> None:
    config = SimulatorConfig(events=6000, seed=3, skewed_clients=0.5, skew_s=600.0)
    plain = list(simulate(SimulatorConfig(events=6000, seed=3)))
    skewed = list(simulate(config))
    by_user: dict[str, set[float]] = {}
    for right, wrong in zip(plain, skewed, strict=True):
        if isinstance(right, (Impression, Video)):
            assert right == wrong
        elif right.ts != wrong.ts:
            user_id = getattr(wrong, "user_id")  # noqa: B009
            by_user.setdefault(user_id, set()).add(round(wrong.ts - right.ts, 2))
    assert len(by_user) > 10
    off = {user: values for user, values in by_user.items() if max(values) - min(values) > 0.011}
    assert off == {}
    assert all(abs(min(values)) <= 600 for values in by_user.values())
    assert any(min(values) < 0 for values in by_user.values())
    assert any(min(values) > 0 for values in by_user.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"video_zipf": 4}, "video_zipf"),
        ({"fatigue": 2}, "fatigue"),
        ({"shift_day": -1}, "shift_day"),
        ({"skew_s": float("nan")}, "skew_s"),
        ({"seed": "many"}, "seed"),
        ({"heads": 1}, "no heads; it has active_videos"),
    ],
)
def test_settings_of_no_world_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SimulatorConfigError, match=message):
        config_of(values)


def test_settings_are_read_from_texts() -> None:
    assert config_of({"video_zipf": "1", "videos": "30", "lang": "zh"}) == SimulatorConfig(
        video_zipf=1.0, videos=30, lang="zh"
    )


def test_another_course_has_other_videos_and_people_and_the_same_names() -> None:
    def texts(config: SimulatorConfig) -> set[tuple[object, ...]]:
        videos = [event for event in simulate(config) if isinstance(event, Video)]
        return {(one.title, one.caption, one.item_title) for one in videos if one.caption}

    first = SimulatorConfig(events=4000, seed=7, new_things=0.3)
    one, other = (replace(first, course=course) for course in (1, 2))
    names = [
        [thing.names for thing in World(each).lexicon.products] for each in (first, one, other)
    ]
    assert names[0] == names[1] == names[2]
    for mine, its in combinations((first, one, other), 2):
        shared = texts(mine) & texts(its)
        assert len(shared) < 0.1 * len(texts(mine))
        ids = [{event.event_id for event in simulate(each)} for each in (mine, its)]
        assert not ids[0] & ids[1]
    people = [make_user(each, World(each).lexicon, "u").traits for each in (first, one, other)]
    assert len({str(traits) for traits in people}) == 3
