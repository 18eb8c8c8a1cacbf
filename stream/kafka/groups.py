"""The names of the workers' consumer groups. Those that fill a state have one a version of it, so
that a new version is filled from the start of the log."""

from __future__ import annotations

from onebar.settings import Settings


def stream_group(settings: Settings) -> str:
    """The consumer group of the stream workers."""
    return f"{settings.consumer_group}-stream-{settings.state_version}"


def generator_group(settings: Settings) -> str:
    """The consumer group of the generator workers."""
    return f"{settings.consumer_group}-generator-{settings.state_version}"


def mapping_group(settings: Settings, name: str) -> str:
    """The consumer group of the workers that map a topic, by their name."""
    return f"{settings.consumer_group}-map-{name}"
