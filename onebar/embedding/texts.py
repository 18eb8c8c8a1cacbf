"""What of a video is embedded: one text, the same when mining, training and serving."""

from __future__ import annotations

from feature_store.records import VideoText
from onebar.evidence import video_line
from onebar.training.triggers import Trigger


def trigger_text(video: VideoText) -> str:
    """T, M and the category of a cleaned video in one line; empty where nothing is known."""
    return joined(video_line(video), video.summary, video.category)


def text_of_trigger(trigger: Trigger) -> str:
    """The same of a trigger of a dataset."""
    return joined(trigger.text, trigger.summary, trigger.category)


def joined(text: str, summary: str, category: str) -> str:
    """The parts that hold something, in one line."""
    return " ".join(part for part in (text, summary, category) if part)
