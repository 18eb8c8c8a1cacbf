"""The world, running: users, videos and the log they leave, event by event.

Memory is bounded by the config, not by the length of the log: so many users, so many videos that
the feed still shows, so many queries remembered for each thing.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate

from msgspec import UNSET, Struct, structs

from stream.events import (
    Click,
    Deletion,
    Engagement,
    EngagementKind,
    Event,
    Exposure,
    Impression,
    Search,
    ShownQuery,
    Video,
)
from stream.simulator.config import SimulatorConfig
from stream.simulator.feed import Feed, FeedVideo
from stream.simulator.policy import LoggingPolicy, Shelf
from stream.simulator.taps import examined, fit, interest, weariness
from stream.simulator.texts.composer import compose
from stream.simulator.texts.lexicon import Lexicon, new_things, world_lexicon
from stream.simulator.texts.noise import misspell
from stream.simulator.texts.wording import NO_THING, Wording, make_intent, sample_wording
from stream.simulator.trends import Trends
from stream.simulator.truth import TruthRecord, UserTruth, WorldTruth, video_truth
from stream.simulator.users import Session, User, make_user

HOUR = 3600.0
DAY = 24 * HOUR
CONCURRENT_SESSIONS = 48
# Share of a day's events in each hour, night to night.
_HOURS = (
    26, 16, 10, 8, 8, 12, 22, 34, 40, 42, 44, 48, 56, 50, 44, 42, 44, 50, 60, 72, 84, 86, 68, 44,
)  # fmt: skip
_HOUR_ENDS = tuple(end / sum(_HOURS) for end in accumulate(_HOURS))


_Effect = tuple[User, FeedVideo | None, Wording, float]


class Visit(Struct, frozen=True, eq=False):
    """A user before a video at a moment: what a bar is asked for. `impression` is its event."""

    session: Session
    shown: FeedVideo
    at: float
    impression: Impression

    @property
    def user(self) -> User:
        return self.session.user

    @property
    def request_id(self) -> str:
        return str(self.impression.request_id)


def _time_of_day(share: float) -> float:
    """Seconds into the day by which this share of the day's events has happened."""
    hour = bisect(_HOUR_ENDS, share)
    if hour >= 24:
        return DAY - 1.0
    start = _HOUR_ENDS[hour - 1] if hour else 0.0
    return (hour + (share - start) / (_HOUR_ENDS[hour] - start)) * HOUR


class World:
    """One run. `records()` may be iterated once. `lexicon` defaults to the shipped one of
    `config.lang`. Raises `SimulatorConfigError`, `LexiconError`."""

    def __init__(self, config: SimulatorConfig, lexicon: Lexicon | None = None) -> None:
        config.check()
        self.config = config
        self.lexicon = lexicon or world_lexicon(config)
        self._rand = random.Random(f"{config.course_seed}:{config.lang}:world").random
        self._policy = LoggingPolicy(
            config, self.lexicon, random.Random(f"{config.course_seed}:{config.lang}:policy").random
        )
        self._prefix = f"{config.lang}{config.course_seed}"
        self._categories = {c.name: c.key for c in self.lexicon.categories}
        self._emitted = 0
        self._sequence = 0
        self._now = config.start_ts
        self._pending: list[tuple[float, int, Event, _Effect | None]] = []
        self._users: dict[int, User] = {}
        self._generations: dict[int, int] = {}
        self._uploaded = 0
        self._impressions = 0
        self._sessions: list[Session | None] = [None] * min(CONCURRENT_SESSIONS, config.user_count)
        self._session_count = 0
        things = len(self.lexicon.products)
        self._new = new_things(config, things)
        self._trends = Trends(
            things,
            config.start_ts,
            self._rand,
            zipf=config.query_zipf,
            shift_ts=config.shift_ts,
            shift=config.shift,
            new=self._new,
        )
        self._feed = Feed(config.active_count, things, self._rand, head=config.video_zipf > 0)
        self._truths: list[TruthRecord] = []

    # Emitting ----------------------------------------------------------------------------------

    def _event_id(self) -> str:
        self._sequence += 1
        return f"{self._prefix}-{self._sequence:08d}"

    def _later(
        self, event: Event, effect: _Effect | None = None, device: User | None = None
    ) -> None:
        """The event at its `ts`; its effect on what policy and users remember, then too. Where a
        user's `device` stamps it, it is told then but says what that device's clock said."""
        self._sequence += 1
        at = event.ts
        if device is not None and device.skew_s:
            said = max(0.0, round(at + device.skew_s, 3))
            event = structs.replace(event, ts=min(said, self.config.end_ts))
        heapq.heappush(self._pending, (at, self._sequence, event, effect))

    def _due(self, until: float) -> Iterator[Event]:
        pending = self._pending
        while pending and pending[0][0] <= until:
            _, _, event, effect = heapq.heappop(pending)
            if effect is not None and effect[2].product != NO_THING:
                user, shown, wording, weight = effect
                user.remember(wording)
                self._policy.learn(None if shown is None else shown.shelf, wording, weight)
            yield event

    def _clock(self) -> float:
        """When the next impression is: the log's share of the whole, bent by the hours."""
        config = self.config
        whole = self._emitted / config.events * config.days
        day = int(whole)
        at = config.start_ts + day * DAY + _time_of_day(whole - day)
        return round(max(self._now, min(at, config.end_ts - 60.0)), 3)

    # Videos ------------------------------------------------------------------------------------

    def _upload(self) -> Video:
        config, rand = self.config, self._rand
        self._uploaded += 1
        video_id = f"v{self._prefix}-{self._uploaded:06d}"
        product = self.lexicon.products[self._trends.pick(self._now)]
        intent = make_intent(product, rand)
        topic: int | None = None
        if rand() < config.sensitive_share:
            topic = int(rand() * len(self.lexicon.phrases.sensitive))
        upload = compose(self.lexicon, config, intent, rand, topic)
        flagged = topic is not None and rand() < config.sensitive_flagged
        late = bool(upload.summary) and rand() < config.summary_late
        flag_late = topic is not None and not flagged and rand() < config.sensitive_flagged_later

        def event(ts: float, *, summary: bool, sensitive: bool) -> Video:
            return Video(
                event_id=self._event_id(),
                ts=ts,
                video_id=video_id,
                title=upload.title,
                caption=upload.caption,
                author=upload.author,
                item_title=upload.item_title,
                ocr=upload.ocr,
                asr=upload.asr,
                summary=upload.summary if summary else "",
                category=upload.category,
                sensitive=sensitive,
            )

        first = event(self._now, summary=not late, sensitive=flagged)
        summary_ts = round(self._now + HOUR * (2 + 8 * rand()), 3) if late else 0.0
        flag_ts = round(self._now + HOUR * (1 + 7 * rand()), 3) if flag_late else 0.0
        if late:
            flagged_by_then = flagged or (flag_late and flag_ts <= summary_ts)
            self._later(event(summary_ts, summary=True, sensitive=flagged_by_then))
        if flag_late:
            self._later(event(flag_ts, summary=not late or summary_ts <= flag_ts, sensitive=True))
        draw = rand()
        shown = FeedVideo(
            video_id,
            intent,
            self._appeal(draw),
            topic is not None,
            self._categories.get(upload.category),
            Shelf(upload.mentions),
        )
        if not late:
            self._policy.read_summary(shown.shelf, upload.summary_mentions)
        self._feed.add(shown)
        self._truths.append(
            video_truth(
                video_id,
                intent,
                sensitive=None if topic is None else self.lexicon.phrases.sensitive[topic][0],
                misleading=upload.misleading,
                told_by=upload.told_by,
            )
        )
        return first

    def _appeal(self, draw: float) -> float:
        """How often a video is shown beside others, from a fair draw."""
        if not self.config.video_zipf:
            return 1.0 / (0.03 + draw * draw)
        # The r-th of V such draws is about r/V, so the r-th most shown has (V/r)^s.
        return float(max(draw, 0.25 / self.config.video_count) ** -self.config.video_zipf)

    # Users -------------------------------------------------------------------------------------

    def _user(self, number: int) -> User:
        user = self._users.get(number)
        if user is None:
            generation = self._generations.get(number, 0)
            user_id = f"u{self._prefix}-{number:05d}" + (f"-{generation}" if generation else "")
            user = self._users[number] = make_user(self.config, self.lexicon, user_id)
            traits = user.traits
            self._truths.append(
                UserTruth(
                    user_id=user_id,
                    synonym=traits.synonym,
                    phrasing=traits.phrasing,
                    modifier=traits.modifier,
                    modifies=traits.modifies,
                    tastes=tuple(self.lexicon.products[i].name for i in user.tastes),
                )
            )
        return user

    def _open_session(self, slot: int) -> Session:
        """A visit begins: more often by those who come often, about what they like or what
        is in the air."""
        rand, config = self._rand, self.config
        draw = rand()
        number = int(draw * draw * config.user_count)
        user = self._user(number)
        self._session_count += 1
        focus = user.tastes[int(rand() * rand() * len(user.tastes))]
        if rand() < 0.3 or self._unheard_of(focus):
            focus = self._trends.pick(self._now)
        session = Session(
            f"s{self._prefix}-{self._session_count:07d}", user, focus, 5 + int(rand() * 20)
        )
        self._sessions[slot] = session
        if rand() < config.session_search:
            self._search(session, None, self._now)
        if rand() < config.deletion_rate:
            self._delete(number, session)
        return session

    def is_new(self, thing: int) -> bool:
        """Whether its name is one that no lexicon has."""
        return thing in self._new

    def _unheard_of(self, thing: int) -> bool:
        """Whether it comes up only when the trend shifts."""
        shift_ts = self.config.shift_ts
        return thing in self._new and shift_ts is not None and self._now < shift_ts

    def _delete(self, number: int, session: Session) -> None:
        """They go at the end of this visit; whoever comes in their place is somebody new."""
        session.left = 0
        del self._users[number]
        self._generations[number] = self._generations.get(number, 0) + 1
        for slot, other in enumerate(self._sessions):
            if other is not None and other.user is session.user:
                self._sessions[slot] = None
        self._later(
            Deletion(
                event_id=self._event_id(),
                ts=round(self._now + HOUR, 3),
                user_id=session.user.user_id,
            )
        )

    def _search(self, session: Session, shown: FeedVideo | None, after: float) -> None:
        """A typed query: about the video, or about what is on the user's mind."""
        rand, config, user = self._rand, self.config, session.user
        if shown is not None and rand() >= config.search_offtopic:
            intent = shown.intent
        else:
            focus = session.focus if rand() < 0.7 else user.tastes[0]
            if self._unheard_of(focus):
                focus = session.focus
            intent = make_intent(self.lexicon.products[focus], rand)
        wording = sample_wording(self.lexicon, config, intent, user.traits, rand)
        query = wording.text
        slip = rand() < config.typo_rate
        if slip:
            query = misspell(query, config.lang, rand)
        event = Search(
            event_id=self._event_id(),
            ts=round(after + 3.0 + 30.0 * rand(), 3),
            user_id=user.user_id,
            query=query,
            video_id=UNSET if shown is None else shown.video_id,
            session_id=session.session_id,
        )
        effect = None if query != wording.text else (user, shown, wording, 1.0)
        self._later(event, effect, user)

    # One impression ----------------------------------------------------------------------------

    def visit(self) -> Visit:
        """Who sees which video next, now."""
        rand = self._rand
        slot = int(rand() * len(self._sessions))
        session = self._sessions[slot]
        if session is None or session.left <= 0:
            session = self._open_session(slot)
        session.left -= 1
        shown = self._feed.next_for(session)
        self._impressions += 1
        return Visit(
            session,
            shown,
            self._now,
            Impression(
                event_id=self._event_id(),
                ts=self._now,
                video_id=shown.video_id,
                user_id=session.user.user_id,
                session_id=session.session_id,
                request_id=f"r{self._prefix}-{self._impressions:08d}",
            ),
        )

    def cascade(self, visit: Visit) -> list[Wording]:
        """What the logging policy shows at a visit, best position first."""
        shown, user = visit.shown, visit.user
        return self._policy.expose(shown.shelf, shown.category, user.seen, user.last)

    def expose(
        self, visit: Visit, queries: Sequence[ShownQuery], request_id: str | None = None
    ) -> None:
        """The bar of a visit is shown, a moment later."""
        self._later(
            Exposure(
                event_id=self._event_id(),
                ts=round(visit.at + 0.2 + self._rand(), 3),
                video_id=visit.shown.video_id,
                user_id=visit.user.user_id,
                queries=list(queries),
                request_id=request_id or visit.request_id,
                session_id=visit.session.session_id,
            ),
            device=visit.user,
        )

    def chances(self, visit: Visit, wordings: Sequence[Wording]) -> list[float]:
        """How likely each query of a bar is tapped where none before it was, by the truth."""
        if visit.shown.sensitive:
            return [0.0] * len(wordings)
        config, user, intent = self.config, visit.user, visit.shown.intent
        gain = config.click_gain * interest(visit.session, intent)
        return [
            examined(position)
            * gain
            * fit(user, intent, wording)
            * weariness(user, wording.text, config.fatigue)
            for position, wording in enumerate(wordings)
        ]

    def react(
        self,
        visit: Visit,
        wordings: Sequence[Wording],
        request_id: str | None = None,
    ) -> int | None:
        """What the user does about a bar: a tap, and what comes of it, or a search of their own.
        The position that was tapped, if any."""
        rand, config, session = self._rand, self.config, visit.session
        tapped: int | None = None
        if not visit.shown.sensitive:
            for position, chance in enumerate(self.chances(visit, wordings)):
                if rand() < chance:
                    tapped = position
                    wording = wordings[position]
                    self._click(visit, wording, position, request_id or visit.request_id)
                    break
            if rand() < config.search_rate * interest(session, visit.shown.intent):
                self._search(session, visit.shown, visit.at + 2.0)
        if config.fatigue:
            chosen = None if tapped is None else wordings[tapped].text
            visit.user.pass_over((wording.text for wording in wordings), chosen)
        return tapped

    def _impress(self) -> Iterator[Event]:
        visit = self.visit()
        yield visit.impression
        wordings = self.cascade(visit)
        if wordings:
            self.expose(visit, [ShownQuery(w.text, at) for at, w in enumerate(wordings)])
        self.react(visit, wordings)

    def _click(self, visit: Visit, wording: Wording, position: int, request_id: str) -> None:
        """The tap, and what came of it."""
        rand, session, shown, user = self._rand, visit.session, visit.shown, visit.user
        at = round(visit.at + 1.5 + 12.0 * rand(), 3)
        self._later(
            Click(
                event_id=self._event_id(),
                ts=at,
                video_id=shown.video_id,
                user_id=user.user_id,
                query=wording.text,
                position=position,
                request_id=request_id,
                session_id=session.session_id,
            ),
            (user, shown, wording, 2.0),
            user,
        )
        category = shown.intent.product.category

        def engage(kind: EngagementKind, delay: float, value: float = 0.0) -> None:
            self._later(
                Engagement(
                    event_id=self._event_id(),
                    ts=round(at + delay, 3),
                    video_id=shown.video_id,
                    user_id=user.user_id,
                    query=wording.text,
                    kind=kind,
                    value=value,
                    request_id=request_id,
                    session_id=session.session_id,
                ),
                device=user,
            )

        right = wording.mask & ~shown.intent.mask == 0
        dwell = round(2.0 + 90.0 * rand() * rand(), 1)
        if rand() < (0.6 if right else 0.25):
            engage("dwell", dwell, dwell)
        if category.kind == "info" or rand() >= (0.55 if right else 0.2):
            return
        engage("item_click", 2.0 + 10.0 * rand())
        if rand() < 0.35:
            engage("cart", 15.0 + 40.0 * rand())
            if rand() < 0.5:
                low, high = category.price
                value = low + (high - low) * rand() * rand()
                engage("order", 60.0 + 300.0 * rand(), round(value, 2))

    # The log -----------------------------------------------------------------------------------

    def records(self) -> Iterator[Event | TruthRecord]:
        """The log with its truth, by time. Exactly `config.events` events."""
        config = self.config
        yield WorldTruth(config)
        for item in self._stream():
            while self._truths:
                yield self._truths.pop(0)
            yield item
            self._emitted += 1
            if self._emitted == config.events:
                return

    def _stream(self) -> Iterator[Event]:
        config = self.config
        videos, events = config.video_count, config.events
        first = min(videos, max(1, config.active_count // 2, videos // 50))
        while True:
            until = self._clock()
            yield from self._due(until)
            self._now = until
            share = first + (videos - first) * self._emitted // events
            if self._uploaded < share:
                yield self._upload()
                continue
            yield from self._impress()
