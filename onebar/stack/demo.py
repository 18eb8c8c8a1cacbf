"""`onebar demo`: the local stack with a feed, for people to look at, or to be checked."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec import structs

from onebar.generator.checkpoint import SHIPPED
from onebar.generator.registry import Registry
from onebar.process.console import progress
from onebar.settings import Settings
from onebar.stack.local import LocalStack
from onebar.stack.showcase import load_showcase
from onebar.stack.variables import exports
from stream.events import Event, encode
from stream.kafka.producer import EventProducer
from stream.logs.feed import feed, keep_feeding
from stream.logs.files import EventLog, Log
from stream.logs.live_check import CheckReport, LiveCheck
from stream.logs.replay import KafkaSink, Replay
from stream.simulator import Lang, SimulatorConfig, write_log


class Demo:
    """The local stack with a feed: for people to look at, or to be checked."""

    def __init__(
        self,
        settings: Settings,
        run_dir: Path,
        *,
        log: Log | None,
        lang: Lang,
        events: int,
        seed: int,
        say: Callable[[str], None],
    ) -> None:
        """Without a `log` one of `events` events is simulated."""
        update: dict[str, Any] = {"api_keys": (), "rate_limit_per_s": 0.0}
        if log is None and "page_users" not in settings.model_fields_set:
            update["page_users"] = load_showcase(lang).people
        if "showable_users" not in settings.model_fields_set:
            # Nobody's privacy is at stake, and a small feed has few people after each video.
            update["showable_users"] = 1
        self._settings = settings.model_copy(update=update)
        self._run_dir = run_dir
        self._log = log
        self._simulated = (lang, events, seed)
        self._say = say

    async def show(self, *, speed: float | None, rate: float) -> None:
        """Feed the log, then keep the feed alive, until cancelled."""
        log, rest = await self._open_feed()
        with self._registered():
            await self._show(log, rest, speed=speed, rate=rate)

    async def _show(
        self, log: Log, rest: Iterator[Event], *, speed: float | None, rate: float
    ) -> None:
        async with self._stack() as stack:
            settings = stack.settings
            producer = EventProducer(settings)
            async with producer:
                inside = self._run_dir / "onebar.env"
                inside.write_text("".join(f"{line}\n" for line in exports(settings)))
                self._say(
                    f"\n    The page: {stack.url}/\n    The API:  {stack.url}/docs\n"
                    f"    Inside:   . {shlex.quote(str(inside))} && onebar status\n"
                )
                with progress("feed") as update:
                    replay = Replay(
                        log,
                        KafkaSink(producer),
                        speed=speed,
                        on_progress=lambda at: update(log.fraction, f"{at.events:,} events"),
                    )
                    done = await stack.guard(replay.run())
                self._say(f"{done.events:,} events are in; {rate:g} a second from now on")
                self._say("Ctrl-C ends all of it")
                await stack.guard(_go_on(rest, log, producer, rate) if rate else _forever())

    async def check(self) -> tuple[CheckReport, list[str]]:
        """Feed the log, compare, measure; the numbers, and what is wrong."""
        log = await self._open_log()
        async with self._stack() as stack:
            with progress("check") as update:
                check = LiveCheck(
                    stack.settings,
                    stack.url,
                    log,
                    say=self._say,
                    on_progress=lambda fraction: update(fraction, ""),
                )
                return await stack.guard(check.report())

    def _stack(self) -> LocalStack:
        return LocalStack(self._settings, self._run_dir, own_names=True, say=self._say)

    async def _open_log(self) -> Log:
        """The log given, or a simulated one, always the same."""
        if self._log is not None:
            next(self._log.entries(), None)  # an empty log is told before anything is started
            return self._log
        lang, events, seed = self._simulated
        config = SimulatorConfig(lang=lang, events=events, seed=seed)
        if config.end_ts > time.time():
            config = structs.replace(config, start_ts=time.time() - config.days * 86400 - 60)
        path = self._run_dir / "feed.jsonl"
        await asyncio.to_thread(write_log, config, path)
        self._say(f"simulated {events:,} events: {path}")
        return EventLog(path)

    async def _open_feed(self) -> tuple[Log, Iterator[Event]]:
        """What has happened, and what is still to come: the log given and nothing, or the
        showcase."""
        if self._log is not None:
            return await self._open_log(), iter(())
        lang, events, seed = self._simulated
        showcase = load_showcase(lang)
        past, rest = showcase.story(seed, events, time.time())
        path = self._run_dir / "feed.jsonl"
        path.write_bytes(b"".join(encode(event) + b"\n" for event in past))
        self._say(f"simulated {events:,} events under {len(showcase.videos)} videos: {path}")
        return EventLog(path), rest

    @contextmanager
    def _registered(self) -> Iterator[None]:
        """Have the stack follow a registry with the shipped checkpoint in it, so that the models of
        the operations page are there to be tried; where settings name a model, it is that one."""
        if {"checkpoint", "registry"} & self._settings.model_fields_set:
            yield
            return
        with TemporaryDirectory(prefix="onebar-models-") as folder:
            registry = Registry(folder)
            name, _ = registry.add(SHIPPED)
            registry.promote(name)
            self._settings = self._settings.model_copy(update={"registry": registry.path})
            yield


async def _go_on(rest: Iterator[Event], log: Log, producer: EventProducer, rate: float) -> None:
    """What is still to come of a world, at this pace and as of now; then the log again."""
    await feed(rest, producer, rate)
    await keep_feeding(log, producer, rate)


async def _forever() -> None:
    await asyncio.Event().wait()
