"""A served answer is explained back: from topics, from an archive, and when nothing is kept."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from stream_fixtures import producer, records
from support import onebar

from feature_store.cache.query_cache import QueryCache
from feature_store.store import FeatureStore
from onebar.cli.inspecting.request import _answered, _show
from onebar.gating.follow import RuleFollower
from onebar.recommending.live import LiveModel
from onebar.recommending.loading import open_gate
from onebar.records import QueryResult
from onebar.settings import Settings
from onebar.stack.answered import Answered, Behind
from stream.archive.follow import archive_topics
from stream.archive.writer import ArchiveWriter
from stream.events import BEHAVIORS, VIDEOS, Click, Event, Exposure, Search, ShownQuery, Video
from stream.workers.generation import query_message
from stream.workers.ingest import Ingester
from stream.workers.metrics import WorkerHealth

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("made_topics")]
REQUEST = "5f2d1c0b9a8e7d6c5b4a3928"


def said(at: float, user: str, query: str) -> Search:
    name = f"{user} {query} {at}"
    return Search(event_id=name, ts=at, user_id=user, video_id="v1", query=query)


async def answer(settings: Settings, store: FeatureStore, cache: QueryCache) -> QueryResult:
    """What the pair is answered now, by the model that the settings name."""
    gate = open_gate(settings)
    await RuleFollower(store, gate).look()
    live = LiveModel(settings, store, cache, gate=gate)
    await live.open()
    try:
        with live.use() as recommender:
            [result] = await recommender.recommend([("v1", "u1")])
    finally:
        await live.close()
    assert isinstance(result, QueryResult)
    return result


async def test_an_answer_is_explained_back_to_its_events(
    settings: Settings,
    store: FeatureStore,
    cache: QueryCache,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    now = time.time()
    title = "Trail running shoes for mud \x1b[31mand rain"
    before: list[Event] = [
        Video(event_id="v", ts=now - 90, video_id="v1", title=title, item_title="trail shoes"),
        *(said(now - 60 + i, f"u{i}", "trail running shoes") for i in range(3)),
        said(now - 50, "u1", "waterproof trail shoes"),
        Search(event_id="h", ts=now - 40, user_id="u1", query="trail socks"),
        Search(event_id="x", ts=now - 40, user_id="u9", query="somebody else's"),
    ]
    taken = 0

    async def take(events: list[Event]) -> None:
        nonlocal taken
        await kafka.send(events)
        log = await records(settings, VIDEOS, BEHAVIORS)
        log.sort(key=lambda record: record.timestamp)
        ingester = Ingester(store, kafka, WorkerHealth())
        await ingester.take(log[taken:])
        taken = len(log)

    async with producer(settings) as kafka:
        await take(before)
        result = await answer(settings, store, cache)
        texts = [query.text for query in result.queries]
        assert "trail running shoes" in texts
        shown = [ShownQuery(text, place) for place, text in enumerate(texts)]
        pair = {"user_id": "u1", "video_id": "v1", "request_id": REQUEST}
        after = time.time()
        click = Click(event_id="c", ts=after + 1, query=texts[0], position=0, **pair)
        await take(
            [
                Exposure(event_id="s", ts=after, queries=shown, **pair),
                click,
                *(said(after + 2 + i, f"w{i}", "red boots") for i in range(3)),
                Video(event_id="w", ts=after + 3, video_id="v1", title="Another title now"),
            ]
        )

        async def found(archive: Path | None = None, days: float = 1.0) -> Answered:
            made = await _answered(settings, REQUEST, archive, days, lambda done, what: None)
            assert made is not None
            assert (made.video_id, made.user_id, made.at) == ("v1", "u1", after)
            assert [one.type for one in made.events] == ["exposure", "click"]
            assert [one.query for one in made.shown] == texts
            assert made.shown[0].became == ("click",)
            assert made.evidence is not None
            assert made.evidence.prompt.startswith("trail shoes")
            assert "red boots" not in made.evidence.prompt
            by_text = {one.query: one.behind for one in made.shown}
            behind = by_text["trail running shoes"]
            assert behind == Behind(searches=3, users=3, last=now - 58)
            return made

        # The text is another by now: what was cached is void.
        await kafka.send_messages([query_message(("v1", "u1"), result)])
        made = await found()
        assert made.served is not None
        assert made.served.where.startswith("onebar.queries/")
        assert (made.rebuilt, made.missing) == ("exact", ())
        assert made.model == result.model
        assert made.evidence is not None
        assert made.evidence.digest == result.evidence_digest
        assert [one.text for one in made.evidence.candidates if one.position is not None] == texts

        with ArchiveWriter(tmp_path / "archive") as writer:
            await archive_topics(settings, writer, stop=asyncio.Event())
        assert await found(tmp_path / "archive") == made

    _show(made)
    page = capsys.readouterr().out
    assert "trail running shoes" in page
    assert "searched 3; 3 users" in page
    assert "\x1b" not in page
    told = onebar("inspect", "request", "nobody", settings=settings)
    assert (told.returncode, told.stdout) == (1, "")
    assert "onebar archive --follow" in told.stderr
