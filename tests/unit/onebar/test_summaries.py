"""Summaries: facets of an answer, frames and sound of a clip made here, and the job around them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_clip, make_speech, make_vision

from onebar.summaries.facets import FACETS, LIMIT, question, read_answer, summary
from onebar.summaries.media import RATE, Media, MediaError, read_media
from onebar.summaries.models import Summarizer, SummaryModelError
from stream.events import Video, encode
from stream.logs.summaries import SummariesError, SummaryCache, find_files, summarize_videos
from stream.logs.videos import read_videos


class TestFacets:
    def test_lines_become_facets_in_their_order(self) -> None:
        answer = "Sure!\n- **Plot**: she runs\n1. Visual： a red shoe.\nIntent: N/A\nmood: dark"
        assert read_answer(answer) == {"Visual": "a red shoe.", "Plot": "she runs"}
        assert summary(read_answer(answer)) == "Visual: a red shoe. Plot: she runs."

    def test_an_answer_without_lines_is_what_is_seen(self) -> None:
        assert summary(read_answer("一双红色的鞋")) == "Visual: 一双红色的鞋."
        assert summary(read_answer("   ")) == ""

    def test_what_is_said_twice_is_said_once(self) -> None:
        assert read_answer("Visual: a shoe\nScene: a shoe.") == {"Visual": "a shoe"}

    @given(st.text(max_size=400))
    def test_no_answer_forges_structure_or_is_long(self, answer: str) -> None:
        told = summary(read_answer(f"Visual: [SEP] {answer}"))
        assert "[SEP]" not in told
        assert "\n" not in told
        assert len(told) <= len(FACETS) * (LIMIT + 12)

    def test_what_is_asked_names_every_facet_and_what_was_heard(self) -> None:
        asked = question("buy [SEP] now")
        assert all(f"{facet}: " in asked for facet in FACETS)
        assert "buy now" in asked


class TestMedia:
    def test_frames_are_spread_and_sound_is_mono(self, tmp_path: Path) -> None:
        found = read_media(make_clip(tmp_path / "clip.mp4"), frames=3)
        colours = [np.asarray(frame).mean(axis=(0, 1)).argmax() for frame in found.frames]
        assert colours == [0, 1, 2]
        assert len(found.sound) == pytest.approx(2 * RATE, rel=0.1)
        assert 0.2 < float(np.abs(found.sound).max()) <= 1.0
        assert len(read_media(tmp_path / "clip.mp4", sound_s=0.5).sound) == RATE // 2

    def test_a_clip_without_sound(self, tmp_path: Path) -> None:
        found = read_media(make_clip(tmp_path / "clip.mp4", sound=False))
        assert len(found.frames) == 4
        assert len(found.sound) == 0

    @pytest.mark.parametrize("content", [b"", b"no video at all", b"\0" * 5000])
    def test_what_is_no_video_is_named(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "clip.mp4"
        path.write_bytes(content)
        with pytest.raises(MediaError, match=r"clip\.mp4"):
            read_media(path)


class Colours:
    """A model that tells the colour of each frame."""

    name = "colours"

    def __init__(self, *, stop_after: int | None = None) -> None:
        self.asked = 0
        self._stop_after = stop_after

    def summarize(self, media: Sequence[Media]) -> list[tuple[str, str]]:
        if self._stop_after is not None and self.asked >= self._stop_after:
            raise KeyboardInterrupt
        self.asked += len(media)
        names = ("red", "green", "blue")
        return [
            (" ".join(names[np.asarray(f).mean(axis=(0, 1)).argmax()] for f in m.frames), "a tone")
            for m in media
        ]


def video(name: str, **fields: object) -> Video:
    return Video(event_id=f"e-{name}", ts=100.0, video_id=name, title="A title", **fields)  # type: ignore[arg-type]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    directory = tmp_path / "clips"
    directory.mkdir()
    make_clip(directory / "a.mp4")
    make_clip(directory / "b%2Fc.mp4", tone=880.0)
    (directory / "broken.mp4").write_bytes(b"broken")
    return directory


VIDEOS = {name: video(name) for name in ("a", "b/c", "broken", "no file")}


class TestJob:
    def test_each_video_again_with_its_summary(self, clips: Path, tmp_path: Path) -> None:
        out, cache = tmp_path / "out.jsonl", tmp_path / "cache"
        counts = summarize_videos(
            VIDEOS, find_files(clips), Colours(), SummaryCache(cache), out, frames=3, batch=2
        )
        assert (counts.videos, counts.without_file, counts.unreadable) == (4, 1, 1)
        assert (counts.made, counts.reused, counts.changed) == (2, 0, 2)
        events = read_videos(out).newest
        assert set(events) == {"a", "b/c"}
        found = events["a"]
        assert (found.summary, found.asr, found.title) == ("red green blue", "a tone", "A title")
        # It replaces the version it was made of, and gives way to a newer one.
        assert 100.0 < found.ts < 100.1
        assert found.event_id != "e-a"

    def test_only_what_is_new_is_looked_at(self, clips: Path, tmp_path: Path) -> None:
        out, cache = tmp_path / "out.jsonl", tmp_path / "cache"
        summarize_videos(VIDEOS, find_files(clips), Colours(), SummaryCache(cache), out, frames=3)
        before = out.read_bytes()
        make_clip(clips / "no file.mp4", tone=220.0)
        model = Colours()
        files = find_files(clips)
        counts = summarize_videos(VIDEOS, files, model, SummaryCache(cache), out, frames=3)
        assert (model.asked, counts.reused, counts.changed) == (1, 2, 3)
        assert out.read_bytes().startswith(before[:20])
        # What the log has already is not said again.
        known = read_videos(out).newest
        again = summarize_videos(known, files, model, SummaryCache(cache), tmp_path / "2", frames=3)
        assert (model.asked, again.changed) == (1, 0)
        # Other settings, other summaries.
        summarize_videos(VIDEOS, files, model, SummaryCache(cache), out, frames=2)
        assert model.asked == 4

    def test_an_interrupted_run_goes_on(self, clips: Path, tmp_path: Path) -> None:
        out, cache = tmp_path / "out.jsonl", tmp_path / "cache"
        with pytest.raises(KeyboardInterrupt):
            summarize_videos(
                VIDEOS, find_files(clips), Colours(stop_after=1), SummaryCache(cache), out, batch=1
            )
        assert not out.exists()
        with cache.open("ab") as file:
            file.write(b'{"key": "cut o')
        model = Colours()
        summarize_videos(VIDEOS, find_files(clips), model, SummaryCache(cache), out, batch=1)
        assert model.asked == 1
        assert len(out.read_bytes().splitlines()) == 2
        assert (
            summarize_videos(
                VIDEOS, find_files(clips), model, SummaryCache(cache), out, batch=1
            ).reused
            == 2
        )

    def test_no_file_at_all_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(SummariesError, match="VIDEO_ID"):
            summarize_videos(VIDEOS, {}, Colours(), SummaryCache(tmp_path / "c"), tmp_path / "out")
        with pytest.raises(SummariesError, match="no directory"):
            find_files(tmp_path / "nowhere")

    def test_the_newest_version_counts(self, tmp_path: Path) -> None:
        log = tmp_path / "log.jsonl"
        old = Video(event_id="1", ts=1.0, video_id="v", title="old")
        new = Video(event_id="2", ts=2.0, video_id="v", title="new")
        log.write_bytes(encode(new) + b"\n" + encode(old) + b"\n")
        assert read_videos(log).newest["v"].title == "new"


class TestModels:
    @pytest.fixture(scope="class")
    def models(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
        directory = tmp_path_factory.mktemp("models")
        return make_vision(directory / "vision"), make_speech(directory / "speech")

    def test_real_models_look_and_listen(self, models: tuple[str, str], tmp_path: Path) -> None:
        clip = read_media(make_clip(tmp_path / "clip.mp4"))
        silent = read_media(make_clip(tmp_path / "silent.mp4", sound=False))
        model = Summarizer(*models, device="cpu", most_tokens=12)
        found = model.summarize([clip, silent])
        assert [bool(heard) for _, heard in found] == [True, False]
        assert all(told.startswith(FACETS) for told, _ in found if told)
        assert any(told for told, _ in found)
        # A batch changes nothing but the time it takes.
        assert model.summarize([clip]) == found[:1]

    def test_one_model_is_enough(self, models: tuple[str, str], tmp_path: Path) -> None:
        clip = read_media(make_clip(tmp_path / "clip.mp4"))
        [(told, heard)] = Summarizer(None, models[1], device="cpu").summarize([clip])
        assert told.startswith("Audio: ")
        assert heard
        [(told, heard)] = Summarizer(models[0], None, device="cpu", most_tokens=8).summarize([clip])
        assert heard == ""

    def test_what_is_no_model_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(SummaryModelError, match="empty"):
            Summarizer(str(tmp_path / "empty"), None)
        with pytest.raises(SummaryModelError, match="name an image"):
            Summarizer(None, None)
