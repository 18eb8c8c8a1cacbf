"""The names of the workers' consumer groups: one a version of the state, so that a new version
is filled from the start of the log."""

from __future__ import annotations

from onebar.settings import Settings


def stream_group(settings: Settings) -> str:
    """The consumer group of the stream workers."""
    return f"{settings.consumer_group}-stream-{settings.state_version}"


def generator_group(settings: Settings) -> str:
    """The consumer group of the generator workers."""
    return f"{settings.consumer_group}-generator-{settings.state_version}"
