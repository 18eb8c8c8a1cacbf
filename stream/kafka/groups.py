"""The names of the workers' consumer groups: one a generation of state, so that a new generation
is filled from the start of the log."""

from __future__ import annotations

from onebar.settings import Settings


def stream_group(settings: Settings) -> str:
    """The consumer group of the stream workers."""
    return f"{settings.consumer_group}-stream-{settings.generation}"


def generator_group(settings: Settings) -> str:
    """The consumer group of the generator workers."""
    return f"{settings.consumer_group}-generator-{settings.generation}"
