"""Frames and sound of a video file, by PyAV (the extra `summarize`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from onebar.errors import OneBarError

RATE = 16_000
"""Samples a second of the sound, as speech models take it."""


class MediaError(OneBarError, ValueError):
    """A file that holds no video or sound that could be read. The text names it."""


class Media(Struct, frozen=True):
    """What was read of a file: `frames` are PIL images in their order, spread evenly over it;
    `sound` is mono, -1 to 1, `RATE` samples a second, empty where there is none."""

    frames: list[Any]
    sound: NDArray[np.float32]


def read_media(path: Path, *, frames: int = 4, sound_s: float = 30.0) -> Media:
    """At most so many frames, and so many seconds of sound from the start. Raises `MediaError`."""
    import av

    try:
        with av.open(str(path)) as container:
            images = _frames(container, frames)
        with av.open(str(path)) as container:
            sound = _sound(container, sound_s)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path} can't be read as a video: {error}") from None
    if not images and not len(sound):
        raise MediaError(f"{path} holds neither a frame nor a sound")
    return Media(images, sound)


def _frames(container: Any, most: int) -> list[Any]:
    """Frames at the middles of equal parts of the video: the nearest that can be decoded."""
    if not container.streams.video or most < 1:
        return []
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    length = _length(container, stream)
    wanted = [length * (2 * at + 1) / (2 * most) for at in range(most)] if length else [0.0]
    images: list[Any] = []
    last: Any = None
    for frame in container.decode(stream):
        last = frame
        moment = float(frame.time or 0.0)
        if len(images) < len(wanted) and moment >= wanted[len(images)]:
            images.append(frame.to_image())
        if len(images) == len(wanted):
            break
    if not images and last is not None:
        images.append(last.to_image())
    return images


def _length(container: Any, stream: Any) -> float:
    """Seconds; 0 where the file does not say."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration else 0.0


def _sound(container: Any, most_s: float) -> NDArray[np.float32]:
    import av

    if not container.streams.audio or most_s <= 0:
        return np.zeros(0, dtype=np.float32)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    parts: list[NDArray[np.float32]] = []
    count, most = 0, round(most_s * RATE)
    for frame in container.decode(container.streams.audio[0]):
        for piece in resampler.resample(frame):
            samples = piece.to_ndarray().reshape(-1).astype(np.float32)
            parts.append(samples)
            count += len(samples)
        if count >= most:
            break
    return np.concatenate(parts)[:most] if parts else np.zeros(0, dtype=np.float32)
