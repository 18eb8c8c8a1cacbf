"""The feed that `onebar demo` shows: videos written by hand, under which simulated people act."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from importlib.resources import files
from itertools import chain, count, islice
from typing import Any

from msgspec import Struct, structs

from onebar.errors import OneBarError
from stream.events import Event, Impression, Video
from stream.simulator import Lang, SimulatorConfig
from stream.simulator.feed import FeedVideo
from stream.simulator.policy import Shelf
from stream.simulator.texts.lexicon import Lexicon, Product, load_lexicon
from stream.simulator.texts.wording import Intent
from stream.simulator.truth import UserTruth, VideoTruth, WorldTruth
from stream.simulator.world import World

FIELDS = ("title", "caption", "author", "item_title", "ocr", "asr", "summary")
DAYS = 2.0
USERS = 60
FRESH_IMPRESSIONS = 60


class ShowcaseError(OneBarError, ValueError):
    """A showcase file that breaks its format. The text names the video."""


class Shown(Struct, frozen=True):
    """A written video, and what it is about."""

    texts: dict[str, str]
    intent: Intent
    sensitive: bool


class Showcase(Struct, frozen=True):
    """The videos in the order of their upload, the words for what they are about, and the user ids
    of those who come most often."""

    lang: Lang
    videos: tuple[Shown, ...]
    lexicon: Lexicon
    people: tuple[str, ...]

    def config(self, seed: int, events: int, now: float, past: float = 1.0) -> SimulatorConfig:
        """People who mean what they type: no slips of the finger, nothing that is off the topic,
        and nobody leaves. The share `past` of the `events` lies before `now` (UTC epoch seconds).
        """
        return SimulatorConfig(
            lang=self.lang,
            seed=seed,
            events=events,
            start_ts=now - past * DAYS * 86400 - 60,
            days=DAYS,
            videos=len(self.videos) + 1,  # the last one comes when all is over
            active_videos=len(self.videos),
            users=USERS,
            typo_rate=0.0,
            search_offtopic=0.0,
            deletion_rate=0.0,
            modifier_rate=0.15,
            mix_extract=0.6,
            mix_pool=0.1,
            mix_anchor=0.3,
        )

    def story(self, seed: int, events: int, now: float) -> tuple[list[Event], Iterator[Event]]:
        """What has happened by `now`, and what comes then, without end: more videos for as long
        again, after that only people. Of what has happened the impressions are left out but for
        the newest: nobody waits for the bars of yesterday."""
        world = self.events(self.config(seed, 2 * events, now, past=0.5))
        past = list(islice(world, events))
        seen = [event for event in past if isinstance(event, Impression)]
        older = {event.event_id for event in seen[:-FRESH_IMPRESSIONS]}
        return [event for event in past if event.event_id not in older], chain(
            world, chain.from_iterable(self._people(seed + more, events, now) for more in count(1))
        )

    def _people(self, seed: int, events: int, now: float) -> Iterator[Event]:
        return (e for e in self.events(self.config(seed, events, now)) if not isinstance(e, Video))

    def events(self, config: SimulatorConfig) -> Iterator[Event]:
        """All events of that world, by time: simulated like any other, under these videos."""
        names = {f"u{config.lang}{config.seed}-{at:05d}": who for at, who in enumerate(self.people)}
        for record in _World(config, self).records():
            if isinstance(record, (VideoTruth, UserTruth, WorldTruth)):
                continue
            who = names.get(getattr(record, "user_id", ""))
            yield record if who is None else structs.replace(record, user_id=who)


class _World(World):
    """A world whose videos are written, one after the other."""

    def __init__(self, config: SimulatorConfig, showcase: Showcase) -> None:
        super().__init__(config, showcase.lexicon)
        self._showcase = showcase

    def _upload(self) -> Video:
        shown = self._showcase.videos[self._uploaded % len(self._showcase.videos)]
        self._uploaded += 1
        video_id = f"{self.config.lang}-{self._uploaded:03d}"
        product = shown.intent.product
        mentions = ((product.index, shown.intent.mask),)
        appeal = 1.0 / (0.2 + self._rand())
        self._feed.add(
            FeedVideo(
                video_id,
                shown.intent,
                appeal,
                shown.sensitive,
                self._categories[product.category.name],
                Shelf(mentions),
            )
        )
        return Video(
            event_id=self._event_id(),
            ts=self._now,
            video_id=video_id,
            category=product.category.name,
            sensitive=shown.sensitive,
            **shown.texts,
        )


def load_showcase(lang: Lang) -> Showcase:
    """The shipped videos of a language. Raises `ShowcaseError`."""
    text = (files("onebar.stack") / "data" / f"showcase.{lang}.toml").read_text("utf-8")
    data = tomllib.loads(text)
    things = [str(entry["thing"]) for entry in data["video"]]
    whole = load_lexicon(lang)
    if missing := set(things) - {product.name for product in whole.products}:
        raise ShowcaseError(f"showcase.{lang}.toml: the lexicon has no {', '.join(missing)}")
    kept = [product for product in whole.products if product.name in things]
    products = tuple(structs.replace(each, index=at) for at, each in enumerate(kept))
    lexicon = structs.replace(whole, products=products)
    named = {product.name: product for product in products}
    videos = tuple(_shown(named[str(entry["thing"])], entry) for entry in data["video"])
    return Showcase(lang, videos, lexicon, tuple(data["people"]))


def _shown(product: Product, entry: dict[str, Any]) -> Shown:
    def number(words: tuple[str, ...], wanted: str, before: int) -> int:
        if wanted not in words:
            raise ShowcaseError(f"{product.name!r} has no {wanted!r}, only {', '.join(words)}")
        return before + words.index(wanted)

    try:
        a, b = (number(product.attributes, word, 0) for word in entry["with"])
    except ValueError as error:
        raise ShowcaseError(f"{product.name!r}: `with` names two attributes: {error}") from None
    first = len(product.attributes)
    use = number(product.uses, entry["for"], first)
    brand = None
    if "brand" in entry:
        brand = number(product.category.brands, entry["brand"], first + len(product.uses))
    mask = 1 << a | 1 << b | 1 << use | (0 if brand is None else 1 << brand)
    texts = {name: str(entry[name]) for name in FIELDS if name in entry}
    return Shown(texts, Intent(product, a, b, use, brand, mask), bool(entry.get("sensitive")))
