"""The demo's feed: written videos, under which simulated people act."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from onebar.stack import showcase
from onebar.stack.showcase import ShowcaseError, load_showcase
from stream.events import Impression, Video, encode, parse
from stream.simulator import LANGS, Lang

NOW = 1_800_000_000.0


@pytest.mark.parametrize("lang", LANGS)
def test_every_video_is_whole_and_told_once(lang: Lang) -> None:
    found = load_showcase(lang)
    assert len(found.videos) >= 18
    titles = [shown.texts["title"] for shown in found.videos]
    assert len(set(titles)) == len(titles)
    for shown in found.videos:
        assert {"title", "caption", "author", "summary"} <= set(shown.texts)
        assert shown.intent.a != shown.intent.b
    assert sum(shown.sensitive for shown in found.videos) == 1
    assert len(set(found.people)) == len(found.people) >= 4


@pytest.mark.parametrize("lang", LANGS)
def test_its_story_goes_on_without_end(lang: Lang) -> None:
    found = load_showcase(lang)
    past, rest = found.story(1, 1500, NOW)
    assert len([event for event in past if isinstance(event, Impression)]) == 60
    assert all(event.ts <= NOW for event in past)
    assert all(parse(encode(event)) == event for event in past[:200])
    videos = [event for event in past if isinstance(event, Video)]
    more = [event for event in islice(rest, 4000) if isinstance(event, Video)]
    assert videos
    assert more
    ids = [video.video_id for video in (*videos, *more)]
    assert len(set(ids)) == len(ids) == len(found.videos)
    users = {getattr(event, "user_id", "") for event in past}
    assert set(found.people) <= users
    again, _ = found.story(1, 1500, NOW)
    assert again == past


def test_a_video_about_what_the_lexicon_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "showcase.en.toml"
    monkeypatch.setattr(showcase, "files", lambda package: tmp_path)
    video = '[[video]]\nthing = "{}"\nwith = ["{}", "beginner"]\nfor = "beginners"\n'
    file.write_text('people = ["a"]\n' + video.format("moon rock", "x"))
    with pytest.raises(ShowcaseError, match="moon rock"):
        load_showcase("en")
    file.write_text('people = ["a"]\n' + video.format("sourdough bread", "chrome plated"))
    with pytest.raises(ShowcaseError, match="chrome plated"):
        load_showcase("en")
