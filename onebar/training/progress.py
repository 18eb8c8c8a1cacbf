"""What a training run shows while it runs: loss, tokens a second, time left."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType

import structlog

log = structlog.get_logger(__name__)


class TrainingProgress:
    """A progress bar on a terminal, a log line every `EVERY_S` seconds elsewhere."""

    EVERY_S = 30.0

    def __init__(self, stage: str, steps: int, limit_s: float, *, enabled: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._stage = stage
        self._steps = steps
        self._limit_s = limit_s
        self._enabled = enabled
        self._bar = Progress(
            TextColumn("{task.description} {task.fields[step]}/{task.fields[steps]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  {task.fields[valid]}"),
            TextColumn("{task.fields[rate]:,.0f} tokens/s"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not (enabled and sys.stderr.isatty()),
        )
        self._task = self._bar.add_task(
            stage, total=1.0, step=0, steps=steps, loss=0.0, valid="", rate=0.0
        )
        self._logged = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, step: int, seconds: float, tokens: int, loss: float) -> None:
        """Show where the run is: steps done, seconds and tokens so far, smoothed loss."""
        done = max(step / self._steps, seconds / self._limit_s)
        rate = tokens / max(seconds, 1e-9)
        self._bar.update(self._task, completed=min(1.0, done), step=step, loss=loss, rate=rate)
        now = time.monotonic()
        if self._enabled and self._bar.disable and now - self._logged >= self.EVERY_S:
            self._logged = now
            log.info(
                "training_step",
                stage=self._stage,
                step=step,
                of=self._steps,
                loss=round(loss, 4),
                tokens_per_s=round(rate),
                left_s=round(seconds / max(done, 1e-9) * (1 - done)),
            )

    def validated(self, step: int, loss: float, best: float) -> None:
        """Show a point of the validation curve, and the best so far (infinite: none counts yet)."""
        self._bar.update(self._task, valid=f"valid {loss:.3f}")
        if self._enabled:
            log.info(
                "training_validated",
                stage=self._stage,
                step=step,
                loss=round(loss, 4),
                best=None if math.isinf(best) else round(best, 4),
            )
