"""The training loop that every stage shares: steps, schedule, validation, resuming, curves.

Runs on `accelerate`: one CPU, one GPU (bfloat16), or several processes started by torchrun or
`accelerate launch`. These share each step's examples, build only their own, and have their
gradients averaged by DistributedDataParallel.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Literal, Protocol

import msgspec
import structlog
from msgspec import Struct

from onebar.process.files import replacing
from onebar.training.batches import BatchT, Examples, share
from onebar.training.progress import TrainingProgress
from onebar.training.validation import validate

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

    # Validation, on examples that are not learnt from.
    validations: int = 20
    """How often over the run; 0 never. There are `LEAST_STEPS` between two, whatever this says."""
    validation_batches: int = 16
    """Batches of one validation: the same examples every time."""
    patience: int | None = 5
    """A run ends after so many validations in a row without a better loss; None goes on."""
    keep: Literal["best", "last"] = "best"
    """Which weights are the result: those with the best loss in a validation, or the last."""

    @property
    def held_out_size(self) -> int:
        """Examples of one validation."""
        return self.validation_batches * self.batch_size if self.validations else 0


LEAST_STEPS = 50
"""Between two validations: a run of a few hundred steps is not to spend them on looking."""


class Stage(Protocol, Generic[BatchT]):
    """What differs from stage to stage."""

    name: str

    @property
    def examples(self) -> Examples[BatchT]:
        """What is learnt from."""
        ...

    @property
    def held_out(self) -> Examples[BatchT] | None:
        """What is not: the loss on these decides when a run ends, and which weights are kept."""
        ...

    def step(self, model: Any, batch: BatchT, backward: Backward) -> Metrics:
        """Compute the losses of one batch and send their gradients back through `backward`.

        Returns the scalars to show, `loss` among them. Randomness comes from torch's generator,
        seeded for each step. In a validation the model is in evaluation mode, no gradients are
        recorded, and `backward` does nothing.
        """
        ...


class Progress(Struct):
    """How far a run is. All from `first` on is of its validations: the losses before the first
    step, in the last one and in the best one; when these two were; how many came after the best."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    loss: float = math.nan
    first: float = math.nan
    valid: float = math.nan
    best: float = math.inf
    best_step: int = 0
    valid_step: int = -1
    valid_done: float = 0.0
    """The share of the run that was done then."""
    since_best: int = 0


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
    from accelerate import Accelerator, DistributedDataParallelKwargs

    if config.threads:
        torch.set_num_threads(config.threads)
    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    bf16 = not on_cpu if config.bf16 is None else config.bf16
    # A pretrained model may have weights that no loss reaches.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        cpu=on_cpu, mixed_precision="bf16" if bf16 else "no", kwargs_handlers=[parallel]
    )


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
        self._backward = self._make_backward()
        self._best: dict[str, Any] | None = None
        """The weights of the best validation; the first process's task."""

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

    def _make_backward(self) -> Backward:
        """What sends a loss back, averaged over the processes."""
        if self.accelerator.num_processes == 1:
            return lambda loss: loss.backward()
        import torch

        class Losses(torch.nn.Module):
            """Hands a loss on. Wrapped in DistributedDataParallel, whose every forward pass makes
            it wait for one backward pass over the weights it holds: so a stage may compute its
            losses as it likes, and send back several. Holds weights alone: no buffer is to be
            overwritten while a graph may need it."""

            def __init__(self, weights: Iterable[Any]) -> None:
                super().__init__()
                self.weights = torch.nn.ParameterList(weights)

            def forward(self, loss: Any) -> Any:
                return loss

        weights = (weight for weight in self.model.parameters() if weight.requires_grad)
        averaged = self.accelerator.prepare_model(Losses(weights))
        return lambda loss: averaged(loss).backward()

    def run(self) -> Progress:
        """Train to the end, which leaves `model` with the weights to keep.

        A KeyboardInterrupt saves the state and is raised again.
        """
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
                while True:
                    done = self._done(limit)
                    if self._due(done):
                        self._validate(done, curves, shown)
                    if done >= 1.0 or self._exhausted():
                        break
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
                        curves.add(progress.step, {**self._mean(metrics), "learning_rate": rate})
                    if now - saved >= config.save_every_s:
                        self.save()
                        saved = now
            except KeyboardInterrupt:
                self.save()
                log.warning("training_interrupted", step=progress.step, state=str(self._state))
                raise
        self.save()
        self._keep()
        return progress

    def _done(self, limit_s: float) -> float:
        """The share of the run that is behind us."""
        progress, steps = self.progress, self._config.steps
        return max(
            progress.step / steps if steps else 1.0, progress.seconds / limit_s if limit_s else 1.0
        )

    def _due(self, done: float) -> bool:
        """Whether to validate before the next step, when the share `done` of the run is behind us:
        before the first step, from time to time, and at the end."""
        progress, held_out, wanted = self.progress, self._stage.held_out, self._config.validations
        if held_out is None or len(held_out) == 0 or not wanted:
            return False
        since = progress.step - progress.valid_step
        if progress.valid_step < 0 or done >= 1.0:
            return since > 0
        return since >= LEAST_STEPS and done - progress.valid_done >= 1.0 / wanted - 1e-9

    def _exhausted(self) -> bool:
        patience = self._config.patience
        return patience is not None and self.progress.since_best >= patience

    def _validate(self, done: float, curves: Curves, shown: TrainingProgress) -> None:
        """One point of the validation curve. The weights are remembered where it is the best yet;
        those before the first step are not a result, so they never are."""
        held_out, progress, config = self._stage.held_out, self.progress, self._config
        assert held_out is not None
        metrics = validate(
            self._stage.step,
            self.model,
            held_out,
            size=config.batch_size,
            seed=config.seed,
            accelerator=self.accelerator,
        )
        progress.valid = metrics["loss"]
        progress.valid_step, progress.valid_done = progress.step, done
        curves.add(progress.step, {f"valid/{name}": value for name, value in metrics.items()})
        if progress.step == 0:
            progress.first = progress.valid
        elif progress.valid < progress.best:
            progress.best, progress.best_step, progress.since_best = (
                progress.valid,
                progress.step,
                0,
            )
            self._remember()
        else:
            progress.since_best += 1
        shown.validated(progress.step, progress.valid, progress.best)
        if self._exhausted():
            log.info(
                "training_stopped_early",
                stage=self._stage.name,
                step=progress.step,
                best_step=progress.best_step,
                best=round(progress.best, 4),
            )

    def _remember(self) -> None:
        if self._config.keep == "best" and self.accelerator.is_main_process:
            weights = self.model.state_dict()
            self._best = {
                name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()
            }

    def _keep(self) -> None:
        """Put the weights to keep into the model."""
        progress = self.progress
        if self._best is not None:
            self.model.load_state_dict(self._best)
        kept = progress.best if self._config.keep == "best" else progress.valid
        if kept > progress.first and self.accelerator.is_main_process:
            log.warning(
                "validation_got_worse",
                stage=self._stage.name,
                before=round(progress.first, 4),
                after=round(kept, 4),
            )

    def _step(self, batch: BatchT, rate: float) -> Metrics:
        import torch

        for group in self._optimizer.param_groups:
            group["lr"] = rate
        accelerator = self.accelerator
        torch.manual_seed(
            step_seed(self._config.seed, self.progress.step, accelerator.process_index)
        )
        with accelerator.autocast():
            metrics = self._stage.step(self.model, batch, self._backward)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._config.clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return {**metrics, "gradient_norm": norm}

    def _mean(self, metrics: Metrics) -> Metrics:
        """Each metric over all processes."""
        if self.accelerator.num_processes == 1:
            return metrics
        return {name: self.accelerator.reduce(value, "mean") for name, value in metrics.items()}

    def _agreed(self, seconds: float) -> float:
        """The first process's clock, so that all end at the same step."""
        if self.accelerator.num_processes == 1:
            return seconds
        from accelerate.utils import broadcast_object_list

        return float(broadcast_object_list([seconds])[0])

    def _batches(self) -> Iterator[BatchT]:
        """This process's batches without end, from the next step on; no other is built."""
        config, examples = self._config, self._stage.examples
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        step = self.progress.step
        for epoch in itertools.count():
            order = examples.order(config.batch_size * processes, seed=config.seed, epoch=epoch)
            for rows in order[step:]:
                yield examples.batch(share(rows, rank, processes), seed=config.seed, epoch=epoch)
            step = max(0, step - len(order))

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
        if self.accelerator.is_main_process:
            self._best = state["best"]
        log.info("training_resumed", stage=self._stage.name, step=self.progress.step)

    def save(self) -> None:
        """Write the state, whole or not at all."""
        import torch

        if not self.accelerator.is_main_process:
            return
        state = {
            "fingerprint": self._fingerprint,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "progress": msgspec.to_builtins(self.progress),
            "best": self._best,
        }
        with replacing(self._state, durable=False) as temporary:
            torch.save(state, temporary)


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
