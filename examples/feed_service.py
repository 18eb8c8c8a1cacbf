"""A feed service that stands between an app and OneBar, with `onebar.AsyncClient`.

    export ONEBAR_URL=http://127.0.0.1:8080
    granian --interface asgi --working-dir examples --port 8090 feed_service:app

    GET  /feed?user=u7&page=0     a page of videos, each with its bar, or null
    POST /seen                    {"user": "u7", "video": "knife", "bar": the bar as /feed gave it}
    POST /tap                     the same, when it was tapped
    POST /search                  {"user": "u7", "video": "knife", "query": "sharp knives"}
    GET  /stats                   where bars came from, how many events wait or were given up

What it shows: bars have a deadline, and a feed without them is still a feed; the videos of the next
page are announced, so that their queries are ready; events are sent behind the app's back, in
batches, and kept while OneBar is away. ONEBAR_API_KEY is a key with the scopes read and write,
VIDEOS a file of videos, one a line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query
from pydantic import BaseModel

import onebar

PAGE = 3
BUDGET_MS = 60.0
"""What OneBar may spend on generating; after that it answers with what it has."""
DEADLINE_S = 0.3
"""What the app waits for bars, whatever happens to OneBar or to the network."""
ROOM = 10_000
"""Events that wait at most; beyond it the oldest are given up."""

log = logging.getLogger("feed")
AWAY = (onebar.BusyError, onebar.UnreachableError, onebar.ClientTimeoutError)
Event = dict[str, Any]


class Outbox:
    """Events on their way. An event keeps its id from here on: sent twice, it counts once."""

    def __init__(self, client: onebar.AsyncClient) -> None:
        self.lost = 0
        self._client = client
        self._waiting: list[Event] = []
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, events: Iterable[Event]) -> None:
        """Never waits, never fails."""
        now = time.time()
        self._waiting += [{"event_id": str(uuid.uuid4()), "ts": now, **event} for event in events]
        over = max(0, len(self._waiting) - ROOM)
        del self._waiting[:over]
        self.lost += over
        self._some.set()

    async def run(self) -> None:
        """Send what comes until cancelled. While OneBar is away all of it waits."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._waiting:
                await self.flush()

    async def flush(self) -> None:
        """Send up to 500 of what waits."""
        batch = self._waiting[:500]
        try:
            await self._client.send(batch)
        except onebar.InvalidEventsError as error:  # of a request with such events none was taken
            for fault in error.faults:
                log.error("event %s is none: %s", fault.index, fault.detail)
            wrong = {fault.index for fault in error.faults} or range(len(batch))
            batch = [event for at, event in enumerate(batch) if at in wrong]
            self.lost += len(batch)
        except onebar.ClientError as error:  # away, or a key to be mended: the same events again
            log.warning("%d events wait: %s", len(self._waiting), error)
            await asyncio.sleep(1.0)
            return
        done = {event["event_id"] for event in batch}
        self._waiting = [event for event in self._waiting if event["event_id"] not in done]


class Bar(BaseModel):
    """What is shown under a video. The app gives it back with what came of it."""

    query: str
    request_id: str
    propensity: float | None = None


class Reaction(BaseModel):
    """A user had a bar before their eyes, or tapped it."""

    user: str
    video: str
    bar: Bar

    def event(self, kind: str, **fields: Any) -> Event:
        who = {"video_id": self.video, "user_id": self.user, "request_id": self.bar.request_id}
        return {"type": kind, **who, **fields}


class Search(BaseModel):
    """What a user typed, after a video or after none."""

    user: str
    query: str
    video: str | None = None


class Feed:
    """The videos, the client, and how often bars came from where."""

    def __init__(self, videos: list[Event], client: onebar.AsyncClient) -> None:
        self.videos = {str(video["video_id"]): video for video in videos}
        self.client = client
        self.outbox = Outbox(client)
        self.sources: Counter[str] = Counter()

    async def page(self, user: str, number: int) -> list[Event]:
        """The videos of a page with their bars; the next page's videos are announced."""
        shown = self._page(number)
        bars = await self._bars(user, shown)
        self.outbox.put(
            {"type": "impression", "video_id": video, "user_id": user}
            for video in self._page(number + 1)
        )
        return [{**self.videos[video], "bar": bars.get(video)} for video in shown]

    def _page(self, number: int) -> list[str]:
        return list(self.videos)[number * PAGE : (number + 1) * PAGE]

    async def _bars(self, user: str, videos: list[str]) -> dict[str, Bar]:
        try:
            answers = await self.client.queries_many(
                [(video, user) for video in videos],
                k=1,
                budget_ms=BUDGET_MS,
                timeout_s=DEADLINE_S,
            )
        except onebar.ClientError as error:
            self.sources["none"] += len(videos)
            if not isinstance(error, AWAY):  # a key that lacks a scope, say: ours to mend
                log.error("no bars: %s", error)
            return {}
        bars = {}
        for answer in answers:
            # A fallback went through the same gate. It may be shown; it is not what was asked for.
            self.sources[answer.fallback or answer.source] += 1
            if not answer.queries:  # rejected, or nothing is known yet: a video without a bar
                continue
            first = answer.queries[0]
            told = first.propensity if isinstance(first.propensity, float) else None
            bars[answer.video_id] = Bar(
                query=first.text, request_id=answer.request_id, propensity=told
            )
        return bars


def videos() -> list[Event]:
    """The feed's own catalogue."""
    path = Path(os.environ.get("VIDEOS") or Path(__file__).with_name("videos.jsonl"))
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    url = os.environ.get("ONEBAR_URL", "http://127.0.0.1:8080")
    async with onebar.AsyncClient(url, api_key=os.environ.get("ONEBAR_API_KEY")) as client:
        feed = app.state.feed = Feed(videos(), client)
        feed.outbox.put({"type": "video", **video} for video in feed.videos.values())
        sending = asyncio.create_task(feed.outbox.run())
        yield
        sending.cancel()
        await asyncio.wait([sending])
        if feed.outbox:
            with suppress(TimeoutError):  # the last ones
                await asyncio.wait_for(feed.outbox.flush(), 2.0)


app = FastAPI(title="A feed", lifespan=lifespan)


def known(video: str | None) -> None:
    if video is not None and video not in app.state.feed.videos:
        raise HTTPException(404, f"there is no video {video!r}")


@app.get("/feed")
async def get_feed(user: str, page: Annotated[int, Query(ge=0)] = 0) -> dict[str, Any]:
    return {"videos": await app.state.feed.page(user, page)}


@app.post("/seen", status_code=202)
async def seen(what: Reaction) -> None:
    known(what.video)
    place: Event = {"query": what.bar.query, "position": 0}
    if what.bar.propensity is not None:
        place["propensity"] = what.bar.propensity
    app.state.feed.outbox.put([what.event("exposure", queries=[place])])


@app.post("/tap", status_code=202)
async def tap(what: Reaction) -> None:
    known(what.video)
    app.state.feed.outbox.put([what.event("click", query=what.bar.query, position=0)])


@app.post("/search", status_code=202)
async def search(what: Search) -> None:
    known(what.video)
    event = {"type": "search", "user_id": what.user, "query": what.query}
    app.state.feed.outbox.put([event | ({"video_id": what.video} if what.video else {})])


@app.get("/stats")
async def stats() -> dict[str, Any]:
    feed = app.state.feed
    return {"bars": feed.sources, "waiting": len(feed.outbox), "lost": feed.outbox.lost}
