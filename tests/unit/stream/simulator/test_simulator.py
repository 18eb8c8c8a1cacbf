"""The simulated feed: reproducible, in causal order, bounded, and as hard as it should be."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import tracemalloc
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard
from msgspec import UNSET

from onebar.evidence.text import clean_video, normalize_query
from onebar.records import TEXT_FIELDS, VideoText
from stream.events import (
    Click,
    Engagement,
    Event,
    Exposure,
    Impression,
    Search,
    Video,
    encode,
    parse,
)
from stream.simulator import SimulatorConfig, SimulatorConfigError, Truth, simulate, write_log
from stream.simulator.config import LANGS, Lang
from stream.simulator.policy import ANCHOR_LIMIT, POOL_LIMIT
from stream.simulator.texts.lexicon import Lexicon, load_lexicon
from stream.simulator.truth import UserTruth, VideoTruth, WorldTruth
from stream.simulator.users import SEEN_LIMIT
from stream.simulator.world import World


def run(config: SimulatorConfig) -> tuple[list[Event], Truth]:
    events: list[Event] = []
    truths: list[VideoTruth | UserTruth | WorldTruth] = []
    for record in World(config).records():
        if isinstance(record, (VideoTruth, UserTruth, WorldTruth)):
            truths.append(record)
        else:
            events.append(record)
    return events, Truth(truths)


@pytest.fixture(scope="module", params=LANGS)
def log(request: pytest.FixtureRequest) -> tuple[SimulatorConfig, list[Event], Truth]:
    config = SimulatorConfig(lang=request.param, events=20_000, seed=11, deletion_rate=0.02)
    return config, *run(config)


Log = tuple[SimulatorConfig, list[Event], Truth]


def test_same_config_same_bytes_whatever_the_hash_seed(tmp_path: Path) -> None:
    program = (
        "import sys; from stream.simulator import *\n"
        "write_log(SimulatorConfig(events=1500, lang=sys.argv[2], seed=3), sys.argv[1])"
    )
    for lang in LANGS:
        digests = set()
        for hash_seed in ("1", "2"):
            path = tmp_path / f"{lang}{hash_seed}.jsonl"
            subprocess.run(
                [sys.executable, "-c", program, path, lang],
                check=True,
                env=os.environ | {"PYTHONHASHSEED": hash_seed},
            )
            truth = path.with_suffix(".truth.jsonl")
            digests.add(hashlib.sha256(path.read_bytes() + truth.read_bytes()).hexdigest())
        assert len(digests) == 1


def test_the_seed_makes_another_world() -> None:
    first = [encode(e) for e in simulate(SimulatorConfig(events=50, seed=1))]
    second = [encode(e) for e in simulate(SimulatorConfig(events=50, seed=2))]
    assert not set(first) & set(second)


def test_exactly_so_many_valid_events_by_time_with_unique_ids(log: Log) -> None:
    config, events, _ = log
    assert len(events) == config.events
    assert len({event.event_id for event in events}) == config.events
    times = [event.ts for event in events]
    assert times == sorted(times)
    assert times[0] >= config.start_ts
    assert times[-1] <= config.end_ts
    assert times[-1] - times[0] > 0.9 * config.days * 86400
    for event in events[::7]:
        assert parse(encode(event)) == event


def test_effects_follow_causes(log: Log) -> None:
    _, events, _ = log
    videos: set[str] = set()
    impressions: dict[str, tuple[str, str]] = {}
    exposed: dict[str, list[str]] = {}
    clicked: set[tuple[str, str]] = set()
    for event in events:
        if isinstance(event, Video):
            videos.add(event.video_id)
        elif isinstance(event, Impression):
            assert event.video_id in videos
            impressions[str(event.request_id)] = (event.video_id, str(event.user_id))
        elif isinstance(event, Exposure):
            assert impressions[str(event.request_id)] == (event.video_id, event.user_id)
            assert [shown.position for shown in event.queries] == list(range(len(event.queries)))
            shown = [item.query for item in event.queries]
            assert len(set(shown)) == len(shown)
            exposed[str(event.request_id)] = shown
        elif isinstance(event, Click):
            assert isinstance(event.position, int)
            assert exposed[str(event.request_id)][event.position] == event.query
            clicked.add((str(event.request_id), event.query))
        elif isinstance(event, Engagement):
            assert (str(event.request_id), event.query) in clicked
            assert (event.kind in ("order", "dwell")) == (event.value > 0)
        elif isinstance(event, Search) and event.video_id is not UNSET:
            assert event.video_id in videos
    assert clicked


def test_the_log_holds_every_sort_of_event_and_behaviour(log: Log) -> None:
    _, events, _ = log
    kinds = Counter(event.kind if isinstance(event, Engagement) else event.type for event in events)
    for kind in ("video", "impression", "search", "exposure", "click", "deletion"):
        assert kinds[kind]
    for kind in ("item_click", "cart", "order", "dwell"):
        assert kinds[kind]
    plain = sum(isinstance(e, Search) and e.video_id is UNSET for e in events)
    assert 0 < plain < kinds["search"]
    clickers: dict[tuple[str, str], set[str]] = defaultdict(set)
    viewers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for event in events:
        if isinstance(event, Click):
            clickers[event.video_id, event.query].add(event.user_id)
        elif isinstance(event, Exposure):
            for shown in event.queries:
                viewers[event.video_id, shown.query].add(event.user_id)
    assert any(viewers[pair] - users for pair, users in clickers.items())
    assert any(len(users) > 1 for users in clickers.values())


def test_positions_are_biased_and_popularity_has_a_long_tail(log: Log) -> None:
    _, events, _ = log
    positions = Counter(e.position for e in events if isinstance(e, Click))
    assert positions[0] > positions[2] > positions[4]
    seen = Counter(e.video_id for e in events if isinstance(e, Impression))
    ranked = [count for _, count in seen.most_common()]
    assert sum(ranked[: len(ranked) // 10]) > 0.25 * sum(ranked)
    half = len(events) // 2
    uploads = [at for at, e in enumerate(events) if isinstance(e, Video)]
    assert sum(at > half for at in uploads) > 0.3 * len(uploads)


def test_sensitive_videos_carry_no_click_and_few_carry_the_flag(log: Log) -> None:
    _, events, truth = log
    bad = {video_id for video_id, video in truth.videos.items() if video.sensitive}
    assert 0.02 < len(bad) / len(truth.videos) < 0.1
    for event in events:
        if isinstance(event, (Click, Engagement, Search)):
            assert event.video_id not in bad
    first: dict[str, bool] = {}
    ever: set[str] = set()
    for event in events:
        if isinstance(event, Video):
            first.setdefault(event.video_id, event.sensitive)
            if event.sensitive:
                ever.add(event.video_id)
    assert ever <= bad
    flagged = {video_id for video_id, flag in first.items() if flag}
    assert 0 < len(flagged) < 0.6 * len(bad)
    assert flagged < ever < bad
    assert any(isinstance(e, Exposure) and e.video_id in bad for e in events)


def test_a_deleted_user_does_not_come_back(log: Log) -> None:
    _, events, _ = log
    gone: set[str] = set()
    for event in events:
        if event.type == "deletion":
            gone.add(event.user_id)  # type: ignore[union-attr, arg-type]
        elif not isinstance(event, Video):
            assert event.user_id not in gone
    assert gone


def test_no_slot_is_left_and_queries_are_normal(log: Log) -> None:
    _, events, _ = log
    queries: set[str] = set()
    for event in events:
        if isinstance(event, Video):
            text = encode(event).decode()
            assert not any(slot in text for slot in ("{p}", "{a}", "{u}", "{r}", "{x}", "{n}"))
        elif isinstance(event, Exposure):
            queries.update(shown.query for shown in event.queries)
    assert len(queries) > 1000
    assert all(normalize_query(query) == query for query in queries)
    assert all("{" not in query and len(query) < 100 for query in queries)


def test_many_wordings_of_one_intent_and_titles_that_mislead(log: Log) -> None:
    _, events, truth = log
    wordings: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if isinstance(event, Click):
            wordings[truth.videos[event.video_id].product].add(event.query)
    assert max(map(len, wordings.values())) > 15
    misled = [video for video in truth.videos.values() if video.misleading]
    assert len(misled) > 50
    assert all(set(video.told_by) <= {"summary"} for video in misled)
    assert any(video.told_by for video in misled)
    assert any(not video.told_by for video in misled)


def hits(events: list[Event], truth: Truth) -> dict[str, float]:
    """Exact HR@8 on the clicks of the later half: anchors alone, the title, the oracle."""
    weights = {"item_click": 2.0, "cart": 3.0, "order": 4.0, "dwell": 0.5}
    anchors: dict[str, Counter[str]] = defaultdict(Counter)
    texts: dict[str, VideoText] = {}
    found: Counter[str] = Counter()
    triggers = 0
    for at, event in enumerate(events):
        if isinstance(event, Video):
            texts[event.video_id] = VideoText(
                **{name: getattr(event, name) for name in TEXT_FIELDS}, sensitive=event.sensitive
            )
        elif isinstance(event, Search) and event.video_id is not UNSET:
            anchors[str(event.video_id)][normalize_query(event.query)] += 1
        elif isinstance(event, Engagement):
            anchors[event.video_id][event.query] += weights[event.kind]  # type: ignore[assignment]
        elif isinstance(event, Click):
            if at > len(events) // 2:
                triggers += 1
                video = clean_video(texts[event.video_id])
                top = [query for query, _ in anchors[event.video_id].most_common(8)]
                found["anchors"] += event.query in top
                found["title"] += event.query in (video.title.lower(), video.item_title.lower())
                found["oracle"] += event.query in truth.oracle(event.video_id, event.user_id)
            anchors[event.video_id][event.query] += 2
    assert triggers > 300
    return {name: found[name] / triggers for name in ("anchors", "title", "oracle")}


@pytest.mark.parametrize("lang", LANGS)
def test_the_default_world_is_hard_but_not_hopeless(lang: Lang) -> None:
    rates = hits(*run(SimulatorConfig(lang=lang, events=40_000, seed=1)))
    assert 0.10 <= rates["anchors"] <= 0.20
    assert rates["title"] < 0.05
    assert 0.5 <= rates["oracle"] <= 0.7


def test_memory_does_not_grow_with_the_log() -> None:
    whole = load_lexicon("en")
    # Two things only, so that what is remembered of each is full early.
    lexicon = Lexicon("en", whole.categories, whole.products[:2], whole.phrases)

    def peak(events: int) -> int:
        config = SimulatorConfig(events=events, users=20, active_videos=30, days=events / 1000)
        tracemalloc.start()
        try:
            for _ in World(config, lexicon).records():
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # Keeping as little as one id an impression would take 30 bytes an event and more.
    assert peak(16_000) - peak(6000) < 15 * 10_000


def test_state_is_capped() -> None:
    config = SimulatorConfig(events=15_000, users=50, active_videos=80)
    world = World(config)
    for _ in world.records():
        assert len(world._truths) < 10
        assert len(world._pending) < 500
    assert len(world._users) <= 50
    assert all(len(user.seen) <= SEEN_LIMIT for user in world._users.values())
    assert len(world._feed._active) <= 80
    assert sum(map(len, world._feed._about)) == len(world._feed._active)
    assert all(len(pool.entries) <= 2 * POOL_LIMIT for pool in world._policy._pools)
    assert all(len(v.shelf.anchors.entries) <= 2 * ANCHOR_LIMIT for v in world._feed._active)


def test_suffix_decides_compression_and_bytes_stay_the_same(tmp_path: Path) -> None:
    config = SimulatorConfig(events=300)
    seen: list[int] = []
    write_log(config, tmp_path / "a.jsonl", progress=seen.append)
    plain = (tmp_path / "a.jsonl").read_bytes()
    assert plain.count(b"\n") == 300
    assert seen[-1] == 300
    for name in ("b.jsonl.gz", "b.jsonl.zst"):
        write_log(config, tmp_path / name, truth_path=tmp_path / "truth.jsonl")
        write_log(config, tmp_path / f"again-{name}", truth_path=tmp_path / "truth.jsonl")
        assert (tmp_path / name).read_bytes() == (tmp_path / f"again-{name}").read_bytes()
    assert gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()) == plain
    with zstandard.open(tmp_path / "b.jsonl.zst", "rb") as reader:
        assert reader.read() == plain
    assert (tmp_path / "truth.jsonl").read_bytes() == (tmp_path / "a.truth.jsonl").read_bytes()


def test_a_log_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def stop(written: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "log.jsonl").write_text("the old one")
    with pytest.raises(KeyboardInterrupt):
        write_log(SimulatorConfig(events=5000), tmp_path / "log.jsonl", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]
    assert (tmp_path / "log.jsonl").read_text() == "the old one"


@pytest.mark.parametrize(
    "config",
    [
        SimulatorConfig(events=1),
        SimulatorConfig(events=400, videos=1, users=1, active_videos=1),
        SimulatorConfig(events=400, slots=1, click_gain=0.0),
        SimulatorConfig(events=400, mix_extract=0.0, mix_pool=0.0, mix_anchor=1.0),
        SimulatorConfig(events=400, sensitive_share=1.0, summary_share=1.0, summary_late=1.0),
        SimulatorConfig(events=400, days=0.01, misleading_share=1.0, deletion_rate=1.0),
    ],
)
def test_odd_worlds_still_run(config: SimulatorConfig) -> None:
    events = list(simulate(config))
    assert len(events) == config.events
    assert all(a.ts <= b.ts for a, b in pairwise(events))
    assert events[-1].ts <= config.end_ts


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (SimulatorConfig(events=0), "events"),
        (SimulatorConfig(lang="fr"), "lang"),  # type: ignore[arg-type]
        (SimulatorConfig(users=0), "users"),
        (SimulatorConfig(days=0), "days"),
        (SimulatorConfig(slots=101), "slots"),
        (SimulatorConfig(seed=-1), "seed"),
        (SimulatorConfig(start_ts=-5.0), "start_ts"),
        (SimulatorConfig(typo_rate=1.5), "typo_rate"),
        (SimulatorConfig(click_gain=float("nan")), "click_gain"),
        (SimulatorConfig(mix_extract=0.9, mix_pool=0.9), "mix_extract"),
    ],
)
def test_a_config_that_describes_no_world(config: SimulatorConfig, message: str) -> None:
    with pytest.raises(SimulatorConfigError, match=message):
        next(simulate(config))


def test_no_event_lies_in_the_future(tmp_path: Path) -> None:
    config = SimulatorConfig(events=10, start_ts=4_000_000_000.0)
    with pytest.raises(SimulatorConfigError, match="future"):
        write_log(config, tmp_path / "log.jsonl")
    assert not list(tmp_path.iterdir())
