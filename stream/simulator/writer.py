"""Logs on disk: JSON Lines, plain or compressed by suffix, whole or not at all."""

from __future__ import annotations

import gzip
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, cast

import zstandard

from onebar.process.files import replacing
from stream.events import Event, encode
from stream.simulator.config import SimulatorConfig, SimulatorConfigError
from stream.simulator.truth import UserTruth, VideoTruth, WorldTruth, encode_record
from stream.simulator.world import World

PROGRESS_EVERY = 1000
"""Events between two calls of `progress`."""


def truth_path_of(path: str | os.PathLike[str]) -> Path:
    """Where the truth of a log lies: `feed.jsonl.gz` → `feed.truth.jsonl`."""
    log = Path(path)
    name = log.name
    for suffix in (".gz", ".zst", ".jsonl", ".json"):
        name = name.removesuffix(suffix)
    return log.with_name(f"{name}.truth.jsonl")


@contextmanager
def whole(path: Path) -> Iterator[Callable[[bytes], object]]:
    """A writer whose file appears under its name only when all of it is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, durable=False) as temporary, ExitStack() as stack:
        raw = stack.enter_context(temporary.open("wb"))
        sink: IO[bytes] = raw
        if path.suffix == ".gz":
            # No name and no time in the header: same log, same bytes.
            sink = cast(
                "IO[bytes]",
                stack.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0)),
            )
        elif path.suffix == ".zst":
            compressor = zstandard.ZstdCompressor(level=3)
            sink = stack.enter_context(compressor.stream_writer(raw, closefd=False))
        buffered = stack.enter_context(io.BufferedWriter(cast("io.RawIOBase", sink), 1 << 18))
        yield buffered.write


def write_log(
    config: SimulatorConfig,
    path: str | os.PathLike[str],
    *,
    truth_path: str | os.PathLike[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Writes the log of a world, and its truth; returns the truth's path.

    JSON Lines; `.gz` and `.zst` compress. Same config, same bytes. `truth_path` defaults to
    `LOG.truth.jsonl` beside the log. `progress` is called with the number of events written so
    far, now and then and at the end. Both files appear whole or not at all. Raises
    `SimulatorConfigError`, also where the world would end in the future; OSError.
    """
    config.check()
    if config.end_ts > time.time():
        raise SimulatorConfigError(
            f"the log would end at {config.end_ts:.0f}, in the future: move start_ts back or "
            "make days fewer"
        )
    truth = Path(truth_path) if truth_path is not None else truth_path_of(path)
    written = 0
    with whole(truth) as write_truth, whole(Path(path)) as write:
        for record in World(config).records():
            if isinstance(record, (VideoTruth, UserTruth, WorldTruth)):
                write_truth(encode_record(record) + b"\n")
                continue
            write(encode(record) + b"\n")
            written += 1
            if progress is not None and written % PROGRESS_EVERY == 0:
                progress(written)
    if progress is not None:
        progress(written)
    return truth


def simulate(config: SimulatorConfig) -> Iterator[Event]:
    """The events of a world, by time, exactly `config.events` of them, one at a time.

    Raises `SimulatorConfigError` when iteration starts."""
    for record in World(config).records():
        if not isinstance(record, (VideoTruth, UserTruth, WorldTruth)):
            yield record
