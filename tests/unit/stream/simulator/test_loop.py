"""The closed loop, before policies that need no server."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onebar.client.errors import ClientTimeoutError, UnreachableError
from onebar.policy import StatePolicy
from stream.archive.reader import open_archive
from stream.archive.writer import ArchiveWriter
from stream.dataset.build import build_dataset
from stream.dataset.config import DatasetConfig
from stream.dataset.tables import COLUMNS
from stream.events import Click, Event, Exposure, Impression, ShownQuery, Video, encode, parse
from stream.simulator import LANGS, Lang, SimulatorConfig
from stream.simulator.loop import (
    ApiPolicy,
    CascadePolicy,
    LoopConfig,
    LoopError,
    LoopReport,
    OraclePolicy,
    Policy,
    open_policy,
    run_loop,
)
from stream.simulator.loop.policies import TRIES, Shown, again
from stream.simulator.loop.reading import Reader
from stream.simulator.loop.report import divergence, head, varied
from stream.simulator.loop.run import Record, arm_of
from stream.simulator.loop.turns import LoopWorld
from stream.simulator.taps import fit
from stream.simulator.texts.wording import NO_THING, Traits, make_intent, sample_wording
from stream.simulator.truth import UserTruth, VideoTruth, WorldTruth
from stream.simulator.users import User, make_user
from stream.simulator.world import Visit, World


@pytest.mark.parametrize("lang", LANGS)
def test_what_a_user_would_type_is_read_as_just_that(lang: Lang) -> None:
    config = SimulatorConfig(lang=lang)
    world = LoopWorld(config)
    reader, rand = Reader(world.lexicon), random.Random(5).random
    for number in range(600):
        product = world.lexicon.products[number % len(world.lexicon.products)]
        intent = make_intent(product, rand)
        user = make_user(config, world.lexicon, f"u{number}")
        wording = sample_wording(world.lexicon, config, intent, user.traits, rand)
        read = reader.read(wording.text, intent, user)
        assert read.text == wording.text
        assert read.product == product.index
        assert fit(user, intent, read) >= fit(user, intent, wording)


def test_other_texts_are_read_by_what_they_name() -> None:
    lexicon = LoopWorld(SimulatorConfig()).lexicon
    reader = Reader(lexicon)
    product = next(p for p in lexicon.products if p.name == "air fryer")
    other = next(p for p in lexicon.products if p.category is not product.category)
    intent = make_intent(product, random.Random(1).random)
    user = User("u", Traits(0.0, 0, 0.0, False), (product.index,))

    def chance(text: str) -> float:
        return fit(user, intent, reader.read(text, intent, user))

    plain = chance("air fryer")
    assert plain > chance("air fryer everybody talks about") > chance("belly chain")
    wrong = next(
        product.facet(number)
        for number in range(len(product.attributes))
        if not intent.mask >> number & 1
    )
    assert chance(f"{wrong} air fryer thing") < 0.1 * plain
    assert reader.read(other.name, intent, user).product == other.index
    assert reader.read("nothing of this world", intent, user).product == NO_THING


def loop(
    *policies: Policy,
    config: SimulatorConfig | None = None,
    prefix: str = "",
    written: list[Record] | None = None,
    windows: int = 4,
) -> LoopReport:
    world = LoopWorld(config or SimulatorConfig(events=4000, users=60))
    return asyncio.run(
        run_loop(
            world,
            policies,
            LoopConfig(windows=windows, prefix=prefix),
            written=None if written is None else written.append,
        )
    )


def test_the_oracle_beats_the_cascade_and_the_interval_says_so() -> None:
    report = loop(CascadePolicy(), OraclePolicy())
    cascade, oracle = report.policies
    assert oracle.true_tap.low > cascade.true_tap.high
    [less] = report.differences
    assert (less.policy, less.less) == ("oracle", "cascade")
    assert less.true_tap.low > 0.2
    assert less.ctr.low > 0.1
    assert less.true_tap.value == pytest.approx(
        oracle.true_tap.value - cascade.true_tap.value, abs=1e-5
    )
    assert cascade.sensitive_shown == 1.0
    assert oracle.sensitive_shown == 0.0
    # Taps are drawn from the true chances.
    assert abs(oracle.ctr.value - oracle.true_tap.value) < 0.06
    assert sum(window.bars for window in oracle.windows) == oracle.bars
    assert oracle.cold.bars + oracle.warm.bars == oracle.bars


def test_the_weary_tap_less() -> None:
    def ctr(fatigue: float) -> float:
        config = SimulatorConfig(events=4000, users=8, fatigue=fatigue)
        return loop(OraclePolicy(), config=config).policies[0].ctr.value

    assert ctr(1.0) < 0.9 * ctr(0.0)


class Twin(CascadePolicy):
    name = "twin"


def test_two_of_a_kind_are_told_apart_by_nothing() -> None:
    report = loop(CascadePolicy(), Twin(), config=SimulatorConfig(events=6000, users=120))
    [less] = report.differences
    assert less.true_tap.low < 0 < less.true_tap.high
    assert less.ctr.low < 0 < less.ctr.high


def test_the_same_loop_again_gives_the_same_report() -> None:
    def plain(report: LoopReport) -> list[tuple[float, ...]]:
        return [
            (policy.true_tap.value, policy.ctr.value, *(w.true_tap for w in policy.windows))
            for policy in report.policies
        ]

    assert plain(loop(CascadePolicy(), OraclePolicy())) == plain(
        loop(CascadePolicy(), OraclePolicy())
    )


class Kept(CascadePolicy):
    """Remembers what it was told and asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.told: list[Event] = []
        self.asked: list[str] = []

    async def tell(self, events: Sequence[Event]) -> None:
        self.told += events

    async def ask(self, world: World, visits: Sequence[Visit]) -> list[Shown]:
        first = len(self.asked)
        self.asked += [visit.user.user_id for visit in visits]
        shown = await super().ask(world, visits)
        return [
            Shown(s.queries, s.source, request_id=f"{self.name}-{first + n}")
            for n, s in enumerate(shown)
        ]


def test_a_user_is_always_with_the_same_policy_and_a_feed_hears_its_own_users_alone() -> None:
    a, b, written = Kept("a"), Kept("b"), list[Record]()
    loop(a, b, prefix="run.", written=written)
    assert set(a.asked) & set(b.asked) == set()
    for arm, policy in enumerate((a, b)):
        assert {arm_of(user, 2) for user in policy.asked} == {arm}
        told = {getattr(event, "user_id", None) for event in policy.told} - {None}
        assert {"run." + user for user in policy.asked} >= {
            event.user_id for event in policy.told if isinstance(event, Impression)
        }
        assert all(arm_of(str(user).removeprefix("run."), 2) == arm for user in told)
    videos = [event.video_id for event in a.told if isinstance(event, Video)]
    assert videos == [event.video_id for event in b.told if isinstance(event, Video)]
    events = [each for each in written if not isinstance(each, (WorldTruth, VideoTruth, UserTruth))]
    assert len({event.event_id for event in events}) == len(events)
    assert all(event.event_id.startswith("run.") for event in events)
    assert all(parse(encode(event)) == event for event in events)
    truths = {each.video_id for each in written if isinstance(each, VideoTruth)}
    assert truths == set(videos)


def test_clicks_are_on_what_was_shown_under_the_request_that_served_it() -> None:
    kept = Kept("only")
    loop(kept)
    shown: dict[tuple[str, str, str], list[str]] = {}
    for event in kept.told:
        if isinstance(event, Exposure):
            key = (event.user_id, event.video_id, str(event.request_id))
            shown[key] = [item.query for item in event.queries]
    clicks = [event for event in kept.told if isinstance(event, Click)]
    assert clicks
    for click in clicks:
        assert click.query in shown[click.user_id, click.video_id, str(click.request_id)]


def test_what_was_told_is_a_log_whose_bars_and_taps_are_found_again(tmp_path: Path) -> None:
    """The answer names exposures and clicks, and no impression: they belong to it all the same."""
    kept = Kept("only")
    loop(kept, config=SimulatorConfig(events=4000, users=60), prefix="run.")
    with ArchiveWriter(tmp_path / "archive") as writer:
        for number, event in enumerate(kept.told):
            writer.add_parsed(event.topic, 0, number, event.ts, event, encode(event), "")
    opened = open_archive(tmp_path / "archive")
    files = {name: opened.table_glob(name) for name in COLUMNS}
    config = DatasetConfig(valid=0.5, test=0.0, policy=StatePolicy(showable_users=1))
    data = build_dataset(files, tmp_path / "data", config)
    clicks = list(data.read("valid", ("click",)))
    assert clicks
    assert all([s.query for s in t.shown if s.clicked] == [t.target] for t in clicks)
    assert data.size("valid", ("shown",)) > len(clicks)
    assert all(trigger.shown for trigger in data.read("valid", ("shown",)))


def test_nobody_taps_an_empty_bar() -> None:
    class Silent(CascadePolicy):
        async def ask(self, world: World, visits: Sequence[Visit]) -> list[Shown]:
            return [Shown((), "silent") for _ in visits]

    [policy] = loop(Silent()).policies
    assert policy.ctr.value == 0
    assert policy.empty == 1
    assert math.isnan(policy.windows[0].distinct)


counted = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 50), min_size=1).map(Counter)


@given(counted, counted)
def test_divergence_is_a_symmetric_distance_of_shares(a: Counter[str], b: Counter[str]) -> None:
    assert divergence(a, b) == pytest.approx(divergence(b, a))
    assert 0 <= divergence(a, b) <= 1
    assert divergence(a, a) == pytest.approx(0)
    doubled = Counter({key: 2 * value for key, value in a.items()})
    assert divergence(a, doubled) == pytest.approx(0, abs=1e-12)
    if not a.keys() & b.keys():
        assert divergence(a, b) == pytest.approx(1)


def test_how_varied_a_bar_is() -> None:
    assert varied(["red boots", "red boots"]) == 0
    assert varied(["red boots", "blue shoes"]) == 1
    assert varied(["红色靴子", "红色鞋子"]) == pytest.approx(0.8)
    assert head(Counter({"a": 50, **{str(n): 1 for n in range(50)}})) == pytest.approx(0.5)


@pytest.mark.parametrize("text", ["ftp://x", "nothing", "a=b"])
def test_what_is_no_policy_is_told(text: str) -> None:
    with pytest.raises(LoopError, match="expected a policy"):
        open_policy(text)


def test_names_of_policies() -> None:
    assert open_policy("http://h:1").name == "h:1"
    assert open_policy("new=http://h:1").name == "new"
    assert open_policy("oracle").name == "oracle"
    with pytest.raises(LoopError, match="one name"):
        loop(CascadePolicy(), CascadePolicy())


def test_an_api_that_is_not_there_is_told_in_one_line() -> None:
    with pytest.raises(LoopError, match=r"127\.0\.0\.1:1.*takes no events"):
        loop(ApiPolicy("http://127.0.0.1:1", timeout_s=0.2))


@pytest.mark.parametrize("unanswered", [TRIES - 1, TRIES])
def test_a_call_that_goes_unanswered_is_made_again(unanswered: int) -> None:
    made = []

    async def call() -> str:
        made.append(1)
        if len(made) <= unanswered:
            raise ClientTimeoutError("no answer in time")
        return "answered"

    if unanswered < TRIES:
        assert asyncio.run(again(call)) == "answered"
    else:
        with pytest.raises(ClientTimeoutError):
            asyncio.run(again(call))
    assert len(made) == TRIES


def test_what_is_not_late_is_not_asked_twice() -> None:
    made = []

    async def call() -> None:
        made.append(1)
        raise UnreachableError("nobody listens")

    with pytest.raises(UnreachableError):
        asyncio.run(again(call))
    assert len(made) == 1


def test_a_propensity_goes_into_the_exposure() -> None:
    class Exploring(Kept):
        async def ask(self, world: World, visits: Sequence[Visit]) -> list[Shown]:
            found = await super().ask(world, visits)
            return [
                Shown(tuple(ShownQuery(q.query, q.position, 0.5) for q in each.queries), "x")
                for each in found
            ]

    kept = Exploring("x")
    loop(kept)
    shown = [item for event in kept.told if isinstance(event, Exposure) for item in event.queries]
    assert shown
    assert {item.propensity for item in shown} == {0.5}
