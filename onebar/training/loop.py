"""The training loop that every stage shares: steps, schedule, resuming, curves, progress.

Runs on `accelerate`: one CPU, one GPU (bfloat16), or several processes started by torchrun or
`accelerate launch`, which take turns at the batches and average their gradients.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol

import msgspec
import structlog
from msgspec import Struct

from onebar.training.batches import BatchT
from onebar.training.progress import TrainingProgress

log = structlog.get_logger(__name__)

STATE = "state.pt"
SMOOTHING = 0.98
"""Of the loss that is shown."""

Backward = Callable[[Any], None]
Metrics = dict[str, Any]


class LoopConfig(Struct, frozen=True, kw_only=True):
    """How long and how fast to train, and on what.

    A run ends after `steps`, or after `minutes` if that comes first; the learning rate climbs
    over the share `warmup` of it, then falls to zero by whichever end is nearer (so with
    `minutes` a run depends on the machine).
    """

    steps: int
    minutes: float | None = None
    batch_size: int
    """Examples of one step and process."""
    learning_rate: float | None = None
    """Peak rate; the preset's where None."""
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest norm of the gradient."""
    seed: int = 0
    threads: int | None = None
    device: str = "auto"
    """`cpu`, or what accelerate finds."""
    bf16: bool | None = None
    """Multiply in bfloat16: None does on a GPU. A CPU with AVX512-BF16 is a third faster so."""
    save_every_s: float = 120.0
    log_every: int = 10
    """Steps between two points of the curves."""
    progress: bool = True


class Stage(Protocol, Generic[BatchT]):
    """What differs from stage to stage."""

    name: str

    def batches(self, size: int, *, seed: int, epoch: int) -> Iterator[BatchT]:
        """One epoch in an order fixed by (seed, epoch)."""
        ...

    def step(self, model: Any, batch: BatchT, backward: Backward) -> Metrics:
        """Compute the losses of one batch and send their gradients back through `backward`.

        Returns the scalars to show, `loss` among them. Randomness comes from torch's generator,
        seeded for each step.
        """
        ...


class Progress(Struct):
    """How far a run is."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    loss: float = math.nan


def schedule(done: float, warmup: float) -> float:
    """The learning rate's factor at `done` (0 to 1) of a run: linear up, then a cosine to 0."""
    if done < warmup:
        return max(1e-3, done / warmup)
    share = min(1.0, (done - warmup) / max(1e-9, 1.0 - warmup))
    return 0.5 * (1.0 + math.cos(math.pi * share))


def step_seed(seed: int, step: int, rank: int) -> int:
    """What torch's generator starts a step with: so a resumed run draws what an unbroken one
    does."""
    digest = hashlib.blake2b(f"{seed}:{step}:{rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def make_accelerator(config: LoopConfig) -> Any:
    """The processes and devices of a run: bfloat16 on a GPU, float32 on a CPU."""
    import torch
    from accelerate import Accelerator

    if config.threads:
        torch.set_num_threads(config.threads)
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    bf16 = not on_cpu if config.bf16 is None else config.bf16
    return Accelerator(cpu=on_cpu, mixed_precision="bf16" if bf16 else "no")


class Loop(Generic[BatchT]):
    """One run of one stage over one model.

    `fingerprint` names what must be the same for a run to go on from the state in `directory`.
    """

    def __init__(
        self,
        config: LoopConfig,
        stage: Stage[BatchT],
        model: Any,
        *,
        peak: float,
        accelerator: Any,
        directory: Path,
        curves: Path,
        fingerprint: str,
    ) -> None:
        self.accelerator = accelerator
        self.model = model.to(accelerator.device)
        self.progress = Progress()
        self._config = config
        self._stage = stage
        self._peak = peak
        self._state = directory / STATE
        self._curves = curves
        self._fingerprint = fingerprint
        self._optimizer = self._make_optimizer()

    def _make_optimizer(self) -> Any:
        import torch

        parameters = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            [
                {
                    "params": [p for p in parameters if p.dim() > 1],
                    "weight_decay": self._config.weight_decay,
                },
                {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
            ],
            lr=self._peak,
            betas=(0.9, 0.98),
            fused=True,
        )

    def run(self) -> Progress:
        """Train to the end. A KeyboardInterrupt saves the state and is raised again."""
        self._resume()
        config, progress = self._config, self.progress
        limit = math.inf if config.minutes is None else config.minutes * 60
        main = self.accelerator.is_main_process
        self.model.train()
        batches = self._batches()
        clock = saved = time.monotonic()
        with (
            Curves(self._curves if main else None, progress.step) as curves,
            TrainingProgress(
                self._stage.name, config.steps, limit, enabled=config.progress and main
            ) as shown,
        ):
            try:
                while progress.step < config.steps and progress.seconds < limit:
                    done = max(progress.step / config.steps, progress.seconds / limit)
                    rate = self._peak * schedule(done, config.warmup)
                    batch = next(batches)
                    metrics = self._step(batch, rate)
                    value = float(metrics["loss"])
                    progress.loss = (
                        value
                        if math.isnan(progress.loss)
                        else SMOOTHING * progress.loss + (1 - SMOOTHING) * value
                    )
                    progress.step += 1
                    progress.tokens += batch.tokens * self.accelerator.num_processes
                    now = time.monotonic()
                    progress.seconds = self._agreed(progress.seconds + now - clock)
                    clock = now
                    shown.update(progress.step, progress.seconds, progress.tokens, progress.loss)
                    if progress.step % config.log_every == 0:
                        curves.add(progress.step, {**metrics, "learning_rate": rate})
                    if now - saved >= config.save_every_s:
                        self.save()
                        saved = now
            except KeyboardInterrupt:
                self.save()
                log.warning("training_interrupted", step=progress.step, state=str(self._state))
                raise
        self.save()
        return progress

    def _step(self, batch: BatchT, rate: float) -> Metrics:
        import torch

        for group in self._optimizer.param_groups:
            group["lr"] = rate
        accelerator = self.accelerator
        torch.manual_seed(
            step_seed(self._config.seed, self.progress.step, accelerator.process_index)
        )
        with accelerator.autocast():
            metrics = self._stage.step(self.model, batch, lambda loss: loss.backward())
        if accelerator.num_processes > 1:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    parameter.grad = accelerator.reduce(parameter.grad, "mean")
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._config.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return {**metrics, "gradient_norm": norm}

    def _agreed(self, seconds: float) -> float:
        """The first process's clock, so that all end at the same step."""
        if self.accelerator.num_processes == 1:
            return seconds
        from accelerate.utils import broadcast_object_list

        return float(broadcast_object_list([seconds])[0])

    def _batches(self) -> Iterator[BatchT]:
        """This process's batches without end; those of the steps done are passed over."""
        config, accelerator = self._config, self.accelerator
        every = (
            batch
            for epoch in itertools.count()
            for batch in self._stage.batches(config.batch_size, seed=config.seed, epoch=epoch)
        )
        world = accelerator.num_processes
        start = self.progress.step * world + accelerator.process_index
        return itertools.islice(every, start, None, world)

    def _resume(self) -> None:
        import torch

        if not self._state.exists():
            return
        state = torch.load(self._state, map_location=self.accelerator.device, weights_only=True)
        if state["fingerprint"] != self._fingerprint:
            log.warning("training_state_ignored", state=str(self._state), reason="other settings")
            return
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.progress = msgspec.convert(state["progress"], Progress)
        log.info("training_resumed", stage=self._stage.name, step=self.progress.step)

    def save(self) -> None:
        """Write the state, whole or not at all."""
        import torch

        if not self.accelerator.is_main_process:
            return
        temporary = self._state.with_suffix(".tmp")
        torch.save(
            {
                "fingerprint": self._fingerprint,
                "model": self.model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "progress": msgspec.to_builtins(self.progress),
            },
            temporary,
        )
        temporary.replace(self._state)


class Curves:
    """TensorBoard's event files; nothing where there is no directory or no tensorboard."""

    def __init__(self, directory: Path | None, step: int) -> None:
        self._writer: Any = None
        if directory is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.info("no_curves", reason="tensorboard is not installed")
            return
        self._writer = SummaryWriter(str(directory), purge_step=step + 1 if step else 0)

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, step: int, scalars: Mapping[str, Any]) -> None:
        """One point of every curve."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(name, float(value), step)
