"""A dataset's triggers have the evidence that serving would have had, and nothing of the future."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import ibis
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ibis.backends.sql.compilers.pyspark import PySparkCompiler
from ibis.config import Config
from msgspec import structs

from feature_store.memory import MemoryStore
from onebar.evidence.evidence import assemble
from onebar.evidence.text import REJECT, clean_video
from onebar.policy import StatePolicy
from onebar.records import QueryCounts
from onebar.triggers import (
    SPLITS,
    DatasetError,
    EmptyDatasetError,
    Shown,
    Trigger,
    TriggerDataset,
)
from stream.archive.reader import open_archive
from stream.archive.writer import archive_log
from stream.dataset.build import build_dataset, split_bounds
from stream.dataset.config import DatasetConfig, DatasetConfigError
from stream.dataset.days import MissingDaysError, check_days, missing_days
from stream.dataset.engine import DatasetEngineError, Workspace
from stream.dataset.preferences import candidates, preference_list, smoothed_ctr
from stream.dataset.tables import COLUMNS
from stream.events import (
    Click,
    Deletion,
    Engagement,
    Event,
    Exposure,
    Impression,
    Removal,
    Search,
    ShownQuery,
    Video,
    encode,
)
from stream.events.fold import fold
from stream.logs.files import EventLog
from stream.simulator import SimulatorConfig, simulate

T0 = 1_767_571_200.0
HOUR = 3600.0


def make(
    directory: Path,
    events: Iterable[Event],
    config: DatasetConfig | None = None,
    *,
    engine: str | None = None,
) -> TriggerDataset:
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "log.jsonl"
    log.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    archive_log(EventLog(log), directory / "archive")
    opened = open_archive(directory / "archive")
    files = {name: opened.table_glob(name) for name in COLUMNS}
    return build_dataset(files, directory / "dataset", config or OPEN, engine=engine)


CAPPED = StatePolicy(max_entries=24, history_size=5, showable_users=2, showable_lookback_s=86400.0)


OPEN = DatasetConfig(policy=StatePolicy(showable_users=1))
"""For those who don't ask about thresholds: whatever anybody asked is an anchor."""


def every(dataset: TriggerDataset) -> dict[str, Trigger]:
    return {t.trigger_id: t for split in SPLITS for t in dataset.read(split)}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Event], TriggerDataset]:
    events = list(simulate(SimulatorConfig(seed=11, events=6_000, deletion_rate=0.05)))
    return events, make(tmp_path_factory.mktemp("simulated"), events, DatasetConfig(policy=CAPPED))


def left(events: list[Event]) -> list[Event]:
    """Without what users did who were forgotten later on."""
    deleted = {
        event.user_id: event.ts + CAPPED.deletion_reach_s
        for event in sorted(events, key=lambda event: event.ts)
        if isinstance(event, Deletion)
    }
    return [
        event
        for event in events
        if isinstance(event, Deletion)
        or event.ts > deleted.get(getattr(event, "user_id", ""), -1.0)
    ]


def test_nobody_is_in_a_dataset_who_was_forgotten(tmp_path: Path) -> None:
    """Also where that was after what the dataset is made until, and nothing of a removed video."""

    def watched(video: str, user: str, query: str, ts: float) -> list[Event]:
        pair = {"video_id": video, "user_id": user}
        return [
            Impression(event_id=f"i{video}{user}", ts=ts, **pair),
            Search(event_id=f"s{video}{user}", ts=ts + 1, query=query, **pair),
            Click(event_id=f"c{video}{user}", ts=ts + 2, query=query, **pair),
        ]

    events: list[Event] = [
        *(Video(event_id=v, ts=0.0, video_id=v, title=f"red shoes {v}") for v in ("v", "gone")),
        *(e for n in range(8) for e in watched("v", f"u{n}", "red shoes", 10.0 * n)),
        *watched("v", "anna", "red shoes of anna e", 15.0),
        *watched("gone", "u9", "red shoes of a shop", 25.0),
        *watched("v", "u10", "red shoes 0171 555 0199", 26.0),
        Deletion(event_id="d", ts=5000.0, user_id="anna"),
        Removal(event_id="r", ts=5000.0, video_id="gone"),
    ]
    dataset = make(tmp_path, events, msgspec.structs.replace(OPEN, until=1000.0))
    found = every(dataset)
    assert {t.user_id for t in found.values()} == {f"u{n}" for n in range(8)}
    assert {t.target for t in found.values()} == {"red shoes"}
    assert {t.video_id for t in found.values()} == {"v"}
    for trigger in found.values():
        assert not any("anna" in query for query in (*trigger.anchors, trigger.target))
    assert not any("anna" in text or "shop" in text for text in dataset.texts())


def test_evidence_is_what_the_store_would_have_given(
    simulated: tuple[list[Event], TriggerDataset],
) -> None:
    """Folding the log up to, and without, the moment of each trigger gives the same to the letter:
    text, anchors in their order, history, counters; small caps make the caps matter."""
    events, dataset = simulated
    triggers = every(dataset)
    store = MemoryStore(CAPPED)
    waiting = sorted(left(events), key=lambda event: event.ts)
    checked = capped = 0
    at = 0
    for trigger in sorted(triggers.values(), key=lambda t: t.ts):
        while waiting[at].ts < trigger.ts:
            for write in fold(waiting[at], clean_video):
                store.apply(write, None)
            at += 1
        [features] = store.features([(trigger.video_id, trigger.user_id)], now=trigger.ts)
        expected = assemble(features)
        assert trigger.evidence == expected
        counts = store.counts(trigger.video_id)
        for preference in trigger.preferences:
            known = counts.get(preference.query, QueryCounts())
            assert (preference.exposures, preference.clicks) == (known.exposures, known.clicks)
        capped += len(counts) > 15
        checked += bool(expected.anchors) and bool(expected.history)
    assert checked > 5  # few videos of a small feed have two who asked the same
    assert capped > 20
    kinds = {trigger.kind for trigger in triggers.values()}
    assert kinds == {"click", "search", "reject", "shown"}


def test_splits_are_by_time_and_texts_are_of_the_train_part(
    simulated: tuple[list[Event], TriggerDataset],
) -> None:
    events, dataset = simulated
    last = -1.0
    for split in SPLITS:
        times = [trigger.ts for trigger in dataset.read(split)]
        assert times == sorted(times)
        assert times[0] > last
        last = times[-1]
    boundary = dataset.card.splits["train"]["end"]
    texts = set(dataset.texts())
    late = {
        event.query
        for event in events
        if isinstance(event, (Search, Click)) and event.ts >= boundary
    } - {
        event.query
        for event in events
        if isinstance(event, (Search, Click)) and event.ts < boundary
    }
    assert late
    assert not late & texts
    assert any(trigger.target in texts for trigger in dataset.read("train"))


def small_world(mark: str, moment: float) -> list[Event]:
    """An impression at T0 + 10 h, and behaviour at `moment` that names `mark` everywhere."""
    now = T0 + 10 * HOUR
    pair = {"video_id": "v", "user_id": "u"}
    other = {"video_id": "v", "user_id": "w"}
    events: list[Event] = [
        Video(event_id="a", ts=T0, video_id="v", title="red trail shoes", category="shoes"),
        Search(event_id="s0", ts=T0 + 1, **other, query="trail shoes"),
        Impression(event_id="trigger", ts=now, **pair, request_id="r"),
        Exposure(
            event_id="x", ts=now + 1, **pair, request_id="r",
            queries=[ShownQuery("blue shoes", 0), ShownQuery("red shoes", 1)],
        ),
        Click(event_id="c", ts=now + 2, **pair, query="red shoes", position=1, request_id="r"),
        Video(
            event_id="b", ts=moment, video_id="v", title=f"{mark} red trail shoes",
            summary=f"{mark} summary", category="shoes",
        ),
        Search(event_id="s1", ts=moment, **other, query=f"{mark} shoes anchor"),
        Search(event_id="s2", ts=moment, user_id="u", query=f"{mark} shoes history"),
        Exposure(
            event_id="x1", ts=moment, **other, queries=[ShownQuery(f"{mark} shoes clicked", 0)]
        ),
        Click(event_id="c1", ts=moment, **other, query=f"{mark} shoes clicked"),
        Engagement(
            event_id="e1", ts=moment, **other, query=f"{mark} shoes clicked", kind="order"
        ),
        # The log ends long after, so that the trigger is in the train part.
        Impression(event_id="later", ts=T0 + 200 * HOUR, video_id="other", user_id="z"),
        Click(event_id="c9", ts=T0 + 200 * HOUR, video_id="other", user_id="z", query="q9"),
    ]  # fmt: skip
    return events


@pytest.mark.parametrize(("shift", "known"), [(-1e-3, True), (0.0, False), (1e-3, False)])
def test_nothing_of_the_future_is_in_a_trigger(tmp_path: Path, shift: float, known: bool) -> None:
    events = small_world("planted", T0 + 10 * HOUR + shift)
    trigger = every(make(tmp_path, events))["trigger"]
    assert trigger.target == "red shoes"
    words = msgspec.json.encode(trigger).decode()
    assert ("planted" in words) == known
    if known:
        assert "planted" in trigger.text
        assert "planted" in trigger.summary
        assert "planted shoes anchor" in trigger.anchors
        assert "planted shoes history" in trigger.history
        assert trigger.preferences[1].query == "planted shoes clicked"
        assert trigger.preferences[1].level == 3
        assert trigger.video_behaviors == 4
    else:
        assert trigger.anchors == ("trail shoes",)
        assert trigger.video_behaviors == 1


@given(
    behind=st.floats(0.001, 1700),
    kinds=st.sets(st.sampled_from(["exposure", "click", "engagement"]), min_size=1),
)
@settings(max_examples=8, deadline=None)
def test_a_reaction_stamped_before_its_impression_is_no_evidence_of_it(
    behind: float, kinds: set[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A client's clock that is behind puts the answer before the question: with the impression's
    request_id it is an outcome all the same, and never evidence."""
    now = T0 + 10 * HOUR
    pair: Any = {"video_id": "v", "user_id": "u", "request_id": "r"}

    def at(kind: str) -> float:
        return now - behind if kind in kinds else now + 2

    events: list[Event] = [
        event for event in small_world("planted", T0 + 20 * HOUR) if event.event_id not in "xc"
    ]
    events += [
        Exposure(
            event_id="x", ts=at("exposure"), **pair,
            queries=[ShownQuery("blue shoes", 0), ShownQuery("red shoes", 1)],
        ),
        Click(event_id="c", ts=at("click"), **pair, query="red shoes", position=1),
        Engagement(event_id="e", ts=at("engagement"), **pair, query="red shoes", kind="order"),
    ]  # fmt: skip
    dataset = make(tmp_path_factory.mktemp("skewed"), events)
    trigger = every(dataset)["trigger"]
    assert trigger.target == "red shoes"
    assert trigger.anchors == ("trail shoes",)
    assert (trigger.history, trigger.recent) == ((), ())
    assert trigger.shown == (Shown("blue shoes", 0, False), Shown("red shoes", 1, True))
    assert trigger.preferences[0].level == 1
    assert trigger.preferences[0].clicks == 0
    assert dataset.card.skewed == len(kinds)


def test_a_request_id_that_came_back_days_later_joins_nothing(tmp_path: Path) -> None:
    events = [e for e in small_world("planted", T0 + 20 * HOUR) if e.event_id != "c"]
    stale = Click(
        event_id="c",
        ts=T0 + 60 * HOUR,
        video_id="v",
        user_id="u",
        query="red shoes",
        request_id="r",
    )
    made = every(make(tmp_path, [*events, stale]))
    assert "trigger" not in made or made["trigger"].target == ""
    assert made["c"].target == "red shoes"


def test_a_visibility_lag_hides_what_was_not_folded_yet(tmp_path: Path) -> None:
    events = small_world("planted", T0 + 10 * HOUR - 5)
    config = msgspec.structs.replace(OPEN, visibility_lag_s=10.0)
    assert "planted" not in str(every(make(tmp_path, events, config))["trigger"])


def test_the_list_of_a_trigger(tmp_path: Path) -> None:
    trigger = every(make(tmp_path, small_world("planted", T0 + 20 * HOUR)))["trigger"]
    assert trigger.shown == (Shown("blue shoes", 0, False), Shown("red shoes", 1, True))
    assert [(p.query, p.level) for p in trigger.preferences] == [
        ("red shoes", 2),
        ("blue shoes", 5),
    ]


def test_engagement_makes_the_first_level(tmp_path: Path) -> None:
    events = small_world("planted", T0 + 20 * HOUR)
    now = T0 + 10 * HOUR
    events.append(
        Engagement(
            event_id="e", ts=now + 9, video_id="v", user_id="u", query="red shoes",
            kind="item_click", request_id="r",
        )
    )  # fmt: skip
    assert every(make(tmp_path, events))["trigger"].preferences[0].level == 1


def test_redelivered_events_count_once_and_a_forgotten_user_has_no_past(tmp_path: Path) -> None:
    events = small_world("planted", T0 + 1 * HOUR)
    once = every(make(tmp_path / "once", events))["trigger"]
    twice = every(make(tmp_path / "twice", [*events, *events]))["trigger"]
    assert once == twice
    assert once.history
    events.append(Deletion(event_id="d", ts=T0 + 2 * HOUR, user_id="u"))
    assert every(make(tmp_path / "gone", events))["trigger"].history == ()


def test_a_video_flagged_later_is_a_reject_with_what_was_known_before(tmp_path: Path) -> None:
    events = small_world("planted", T0 + 20 * HOUR)
    events.append(Video(event_id="f", ts=T0 + 30 * HOUR, video_id="v", title="x", sensitive=True))
    # The click went to a video that must not carry a query: it is nobody's target.
    with pytest.raises(EmptyDatasetError, match="no clicks in the train part"):
        make(tmp_path / "only", events)
    assert not (tmp_path / "only" / "dataset").exists()
    pair = {"video_id": "w", "user_id": "u"}
    events += [
        Impression(event_id="i2", ts=T0 + HOUR, **pair),
        Click(event_id="c2", ts=T0 + HOUR + 3, **pair, query="other query"),
    ]
    triggers = every(make(tmp_path / "both", events))
    assert triggers["trigger"].target == REJECT
    assert triggers["trigger"].text == "red trail shoes"
    assert triggers["i2"].target == "other query"


def test_a_click_without_its_impression_is_a_trigger_of_its_moment(tmp_path: Path) -> None:
    events = [e for e in small_world("planted", T0 + HOUR) if e.event_id != "trigger"]
    triggers = every(make(tmp_path, events))
    assert triggers["c"].target == "red shoes"
    assert triggers["c"].ts == T0 + 10 * HOUR + 2


def test_a_query_of_500_characters_is_no_target(tmp_path: Path) -> None:
    events = small_world("planted", T0 + HOUR)
    long = Click(
        event_id="c0", ts=T0 + 10 * HOUR + 1, video_id="v", user_id="u", query="x " * 250,
        request_id="r",
    )  # fmt: skip
    assert every(make(tmp_path, [*events, long])).get("trigger") is None


def test_a_log_without_anything_to_learn_is_told(tmp_path: Path) -> None:
    video = Video(event_id="a", ts=T0, video_id="v", title="t")
    with pytest.raises(EmptyDatasetError, match="nothing to learn"):
        make(tmp_path, [video])
    assert not (tmp_path / "dataset").exists()


def test_a_dataset_is_replaced_but_nothing_else_is(
    tmp_path: Path,
) -> None:
    events = small_world("planted", T0 + HOUR)
    make(tmp_path, events)
    assert every(make(tmp_path, events)).keys() == {"trigger", "c1", "later"}
    (tmp_path / "dataset" / "dataset.json").unlink()
    with pytest.raises(DatasetError, match="no dataset"):
        make(tmp_path, events)


def test_settings_that_describe_nothing_are_refused() -> None:
    for wrong in (
        DatasetConfig(valid=0.6, test=0.5),
        DatasetConfig(shown_share=2.0),
        DatasetConfig(since=2.0, until=1.0),
        DatasetConfig(visibility_lag_s=-1.0),
    ):
        with pytest.raises(DatasetConfigError):
            wrong.check()


def test_splits_are_shares_of_the_triggers_by_time() -> None:
    times = ibis.memtable({"ts": [float(ts) for ts in range(101)]})
    bounds = split_bounds(times, DatasetConfig(valid=0.2, test=0.1))
    assert bounds["train"] == pytest.approx((0.0, 70.0))
    assert bounds["valid"] == pytest.approx((70.0, 90.0))
    assert bounds["test"][1] > 100.0
    whole = split_bounds(times, DatasetConfig(valid=0.0, test=0.0))
    assert whole["train"][1] > 100.0
    assert whole["test"][0] == whole["test"][1]


def test_one_wrong_clock_moves_no_split() -> None:
    """A device whose clock is ten years ahead, or at the epoch."""
    times = [*(T0 + number for number in range(100)), T0 + 3e8, 1.0]
    bounds = split_bounds(ibis.memtable({"ts": times}), DatasetConfig())
    counts = [sum(begin <= ts < end for ts in times) for begin, end in bounds.values()]
    assert counts == pytest.approx([82, 10, 10], abs=1)


def quiet_bars(count: int) -> list[Event]:
    """Impressions that showed a query nobody tapped, and clicks in their midst."""
    events: list[Event] = [Video(event_id="v", ts=T0, video_id="v", title="red shoes")]
    for number in range(count):
        ts = T0 + 60.0 * (number + 1)
        user, ids = f"u{number}", (f"i{number}", f"e{number}", f"c{number}")
        events.append(Impression(event_id=ids[0], ts=ts, video_id="v", user_id=user))
        events.append(
            Exposure(
                event_id=ids[1], ts=ts + 1, video_id="v", user_id=user,
                queries=(ShownQuery("red shoes", 0),),
            )
        )  # fmt: skip
        if number % 10 == 0:
            events.append(
                Click(event_id=ids[2], ts=ts + 2, video_id="v", user_id=user, query="red shoes")
            )
    return events


def test_the_share_of_quiet_impressions_is_the_share_asked_for(tmp_path: Path) -> None:
    config = DatasetConfig(shown_share=0.5, valid=0.0, test=0.2)
    splits = make(tmp_path, quiet_bars(1000), config).card.splits
    assert splits["train"]["click"] == 80
    assert splits["train"]["shown"] == pytest.approx(360, abs=50)
    assert splits["test"]["shown"] == 180


@pytest.mark.parametrize("impression", [None, "feed-1", "r1"])
@pytest.mark.parametrize("exposure", [None, "r1"])
def test_a_bar_belongs_to_its_impression_however_the_feed_names_that(
    tmp_path: Path, impression: str | None, exposure: str | None
) -> None:
    """An impression is told before the lookup, so its name may be the feed's own."""
    common: dict[str, Any] = {"video_id": "v", "user_id": "u"}
    bar = [ShownQuery("red boots", 0), ShownQuery("boots", 1)]
    events: list[Event] = [
        Video(event_id="v", ts=T0 - 1, video_id="v", title="red boots"),
        Impression(event_id="i", ts=T0, request_id=impression, **common),
        Exposure(event_id="x", ts=T0 + 1, queries=bar, request_id=exposure, **common),
        Click(event_id="c", ts=T0 + 2, query="boots", position=1, request_id=exposure, **common),
    ]
    [trigger] = every(make(tmp_path, events, structs.replace(OPEN, valid=0.0, test=0.0))).values()
    assert trigger.trigger_id == "i"
    assert trigger.target == "boots"
    assert [item.query for item in trigger.shown] == ["red boots", "boots"]


def test_a_request_id_that_is_always_the_same_names_the_nearest(tmp_path: Path) -> None:
    """A client that sends "0" for every request."""
    events: list[Event] = [Video(event_id="v", ts=T0, video_id="v", title="red shoes")]
    for number in range(3):
        ts = T0 + HOUR * (number + 1)
        same: Any = {"video_id": "v", "user_id": "u", "request_id": "0"}
        events.append(Impression(event_id=f"i{number}", ts=ts, **same))
        events.append(Click(event_id=f"c{number}", ts=ts + 1, query=f"shoes {number}", **same))
    made = every(make(tmp_path, events))
    assert {id: trigger.target for id, trigger in made.items()} == {
        f"i{number}": f"shoes {number}" for number in range(3)
    }


class SparkOptions(Config):
    treat_nan_as_null: bool = False


def test_every_expression_is_one_that_a_cluster_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that DuckDB works out here can be said in Spark's SQL (tests/cluster runs it there)."""
    said: list[str] = []

    def keep(self: Workspace, name: str, rows: Any) -> Any:
        if isinstance(rows, ibis.Expr):
            said.append(PySparkCompiler().to_sqlglot(rows.unbind()).sql("spark"))
        return plain(self, name, rows)

    # What Spark's backend registers once it is imported.
    monkeypatch.setattr(ibis.options, "pyspark", SparkOptions())
    plain = Workspace.keep
    monkeypatch.setattr(Workspace, "keep", keep)
    make(tmp_path, small_world("planted", T0 + HOUR))
    assert len(said) > 15


def test_what_a_run_creates_on_an_engine_is_gone_afterwards(tmp_path: Path) -> None:
    database = tmp_path / "shared.duckdb"
    address = f"duckdb://{database}"
    make(tmp_path, small_world("planted", T0 + HOUR), engine=address)
    assert ibis.connect(address).list_tables() == []


def test_an_engine_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetEngineError, match="elsewhere"):
        make(tmp_path, small_world("planted", T0 + HOUR), engine="elsewhere://host")
    assert not (tmp_path / "dataset").exists()


def test_missing_days_are_named() -> None:
    days = [date(2026, 1, 1), date(2026, 1, 4)]
    assert missing_days(days) == [date(2026, 1, 2), date(2026, 1, 3)]
    assert missing_days([]) == []
    config = DatasetConfig()
    assert check_days(days[:1], config, strict=True) == []
    assert "2026-01-02, 2026-01-03" in check_days(days, config, strict=False)[0]
    with pytest.raises(MissingDaysError, match="2026-01-02"):
        check_days(days, config, strict=True)
    with pytest.raises(MissingDaysError, match="2025-12-31 was asked for"):
        check_days(days[:1], DatasetConfig(since=1767139200.0), strict=True)


# Preference lists -----------------------------------------------------------------------------

CONFIG = DatasetConfig(min_exposures=5, prior_ctr=0.1, prior_exposures=10)


def listed(
    counts: dict[str, tuple[int, int, int]],
    shown: Sequence[Shown] = (),
    pool: Sequence[str] = (),
    own: Sequence[str] = (),
) -> list[tuple[str, int]]:
    known = {query: QueryCounts(*numbers) for query, numbers in counts.items()}
    levels = candidates(
        target="t", engaged=False, shown=shown, counts=known, own=own, anchors=["mine"], pool=pool
    )
    found = preference_list(levels, known, "red shoes", CONFIG, "id")
    return [(preference.query, preference.level) for preference in found]


def test_levels_of_the_table() -> None:
    counts = {"engaged": (20, 6, 2), "clicked": (20, 4, 0), "seen": (20, 0, 0), "mine": (9, 1, 0)}
    shown = [Shown("t", 1, True), Shown("seen", 0, False), Shown("far", 5, False)]
    pool = ["engaged", "seen", "mine", "red hat", "green hat"]
    assert listed(counts, shown, pool, own=["mine"]) == [
        ("t", 2), ("engaged", 3), ("clicked", 4), ("seen", 5), ("red hat", 6)
    ]  # fmt: skip


def test_a_query_whose_ctr_contradicts_its_level_is_dropped() -> None:
    # Level 4 clicked more often than level 3: it can't stand below it.
    counts = {"engaged": (50, 2, 1), "clicked": (50, 40, 0)}
    assert listed(counts) == [("t", 2), ("engaged", 3)]
    # With too few exposures to judge, it stays.
    assert listed({"engaged": (50, 2, 1), "clicked": (2, 2, 0)}) == [
        ("t", 2), ("engaged", 3), ("clicked", 4)
    ]  # fmt: skip


def test_smoothing() -> None:
    assert smoothed_ctr(QueryCounts(), CONFIG) == pytest.approx(0.1)
    assert smoothed_ctr(QueryCounts(10, 5, 0), CONFIG) == pytest.approx(6 / 20)


@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 3)),
    ),
    st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=5),
    st.lists(st.sampled_from("abcxyz"), unique=True),
)
def test_every_list_is_ordered_and_says_everything_once(
    counts: dict[str, tuple[int, int, int]], bar: list[str], pool: list[str]
) -> None:
    shown = [Shown(query, at, False) for at, query in enumerate(bar)]
    found = listed(counts, shown, pool)
    levels = [level for _, level in found]
    assert found[0] == ("t", 2)
    assert levels == sorted(set(levels))
    assert len({query for query, _ in found}) == len(found)
    judged = [
        smoothed_ctr(QueryCounts(*counts[query]), CONFIG)
        for query, level in found[1:]
        if query in counts and counts[query][0] >= CONFIG.min_exposures
    ]
    assert judged == sorted(judged, reverse=True)


@pytest.mark.parametrize("old", ["none", "first", "all"])
def test_older_exposures_are_read_beside_newer_ones(tmp_path: Path, old: str) -> None:
    """Archives from before there were propensities, alone and gone on with."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def seen(number: int, **told: float) -> list[Event]:
        common: dict[str, Any] = {
            "video_id": "v",
            "user_id": f"u{number}",
            "request_id": f"r{number}",
        }
        at = T0 + 86400.0 * number
        queries = [ShownQuery("red boots", 0), ShownQuery("boots", 1, **told)]
        return [
            Impression(event_id=f"i{number}", ts=at, **common),
            Exposure(event_id=f"x{number}", ts=at + 1, queries=queries, **common),
            Click(event_id=f"c{number}", ts=at + 2, query="boots", position=1, **common),
        ]

    video = Video(event_id="v", ts=T0 - 1, video_id="v", title="boots")
    events = [video, *seen(0), *seen(1, propensity=0.25), *seen(2, propensity=0.5)]
    log = tmp_path / "log.jsonl"
    log.write_bytes(b"".join(encode(event) + b"\n" for event in events))
    archive_log(EventLog(log), tmp_path / "archive")
    opened = open_archive(tmp_path / "archive")
    files = sorted((tmp_path / "archive").glob("events/type=exposure/*/*.parquet"))
    assert len(files) == 3
    for path in {"none": [], "first": files[:1], "all": files}[old]:
        table = pq.ParquetFile(path).read()
        at = table.schema.get_field_index("queries")
        shown = pa.list_(pa.struct([("query", pa.string()), ("position", pa.int32())]))
        rows = [
            [{"query": item["query"], "position": item["position"]} for item in bar]
            for bar in table.column("queries").to_pylist()
        ]
        pq.write_table(table.set_column(at, "queries", pa.array(rows, shown)), path)
    config = structs.replace(OPEN, valid=0.0, test=0.0)
    made = build_dataset(
        {name: opened.table_glob(name) for name in COLUMNS}, tmp_path / "dataset", config
    )
    found = {t.trigger_id: [item.propensity for item in t.shown] for t in every(made).values()}
    expected = {"i0": [1.0, 1.0], "i1": [1.0, 0.25], "i2": [1.0, 0.5]}
    assert found == ({each: [1.0, 1.0] for each in expected} if old == "all" else expected)
