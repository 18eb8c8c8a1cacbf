"""Stage 1, grounded supervised fine-tuning (Eq. 5): cross-entropy on the clicked query or on
`[REJECT]`. From scratch by preset, or on from a checkpoint."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from onebar.checkpoint import TOKENIZER, GenerationConfig, open_checkpoint
from onebar.prompt import PromptConfig
from onebar.tokens import PromptTokenizer
from onebar.training.dataset import Batch, Dataset, read_examples
from onebar.training.export import export_checkpoint
from onebar.training.presets import bart_config, preset
from onebar.training.tokenizer import train_tokenizer

log = structlog.get_logger(__name__)

STATE = "state.pt"
TOKENIZER_SAMPLE = 200_000


class SFTConfig(Struct, frozen=True, kw_only=True):
    """Everything a run of stage 1 depends on.

    `examples` is a file of `onebar.training.dataset.Example` lines, whose prompts were built with
    `prompt`. `out` is the checkpoint to write; the run's own state lies in `.OUT.training` beside
    it until the end, and a run that was interrupted goes on from there. It ends after `steps`, or
    after `minutes` if that comes first; the learning rate falls to zero by whichever is nearer.
    """

    examples: Path
    out: Path
    preset: str = "demo"
    init: Path | None = None
    """A checkpoint with float weights to go on from; its size and tokenizer are kept."""
    steps: int = 2000
    minutes: float | None = None
    batch_size: int = 64
    learning_rate: float | None = None
    """Peak rate; the preset's where None."""
    warmup: float = 0.05
    """Share of the run in which the rate climbs."""
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 0
    threads: int | None = None
    device: str = "auto"
    save_every_s: float = 120.0
    weights: bool = True
    """Keep float weights in the checkpoint: needed by the torch engine and by later stages."""
    prompt: PromptConfig = PromptConfig()
    generation: GenerationConfig = GenerationConfig()
    facts: dict[str, Any] = {}
    """Written into the card: where the log came from."""
    progress: bool = True

    @property
    def fingerprint(self) -> str:
        """What must be equal for a run to go on from another's state."""
        fixed = (
            str(self.examples),
            self.preset,
            str(self.init),
            self.steps,
            self.batch_size,
            self.seed,
            self.prompt,
            self.generation,
        )
        return hashlib.sha256(msgspec.json.encode(fixed)).hexdigest()


class EmptyDatasetError(ValueError):
    """There is nothing to train on."""


def schedule(done: float, warmup: float) -> float:
    """The learning rate's factor at `done` (0 to 1) of a run: linear up, then a cosine to 0."""
    if done < warmup:
        return max(1e-3, done / warmup)
    share = min(1.0, (done - warmup) / max(1e-9, 1.0 - warmup))
    return 0.5 * (1.0 + math.cos(math.pi * share))


def train_sft(config: SFTConfig) -> Path:
    """Train and write a checkpoint; its path.

    Ctrl-C (KeyboardInterrupt) saves the state and is raised again. Raises `EmptyDatasetError`,
    `InvalidExampleError`, `CheckpointError`.
    """
    import torch

    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)
    device = torch.device(
        ("cuda" if torch.cuda.is_available() else "cpu")
        if config.device == "auto"
        else config.device
    )
    run = config.out.parent / f".{config.out.name}.training"
    run.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(config, run / TOKENIZER)
    dataset = Dataset(read_examples(config.examples), tokenizer)
    if len(dataset) == 0:
        raise EmptyDatasetError(
            f"{config.examples} has no examples: the log it came from has no clicks"
        )
    model = _model(config, tokenizer).to(device)
    log.info(
        "sft_started",
        examples=len(dataset),
        parameters=sum(p.numel() for p in model.parameters()),
        device=str(device),
    )
    trained = _train(config, model, dataset, device, run / STATE)
    checkpoint = export_checkpoint(
        model.to("cpu").eval(),
        run / TOKENIZER,
        config.out,
        preset=config.preset,
        prompt=config.prompt,
        generation=config.generation,
        training={"stage": "sft", "examples": len(dataset), **trained, **config.facts},
        weights=config.weights,
    )
    for path in (run / STATE, run / TOKENIZER):
        path.unlink(missing_ok=True)
    run.rmdir()
    return checkpoint.path


def _tokenizer(config: SFTConfig, path: Path) -> PromptTokenizer:
    if not path.exists():
        if config.init is not None:
            path.write_bytes(open_checkpoint(config.init).need(TOKENIZER).read_bytes())
        else:
            texts = (
                text
                for example in itertools.islice(read_examples(config.examples), TOKENIZER_SAMPLE)
                for text in (example.prompt, example.target)
            )
            train_tokenizer(texts, path, vocab_size=preset(config.preset).vocab_size)
    return PromptTokenizer(
        path,
        max_source_tokens=config.generation.max_source_tokens,
        max_target_tokens=config.generation.max_target_tokens,
    )


def _model(config: SFTConfig, tokenizer: PromptTokenizer) -> Any:
    from transformers import BartForConditionalGeneration

    if config.init is None:
        return BartForConditionalGeneration(
            bart_config(preset(config.preset), tokenizer.vocab_size)
        )
    return load_model(config.init)


def load_model(path: Path) -> Any:
    """The transformers model of a checkpoint with float weights.

    Raises `CheckpointMismatchError` where it has none.
    """
    from safetensors.torch import load_file
    from transformers import BartConfig, BartForConditionalGeneration

    from onebar.checkpoint import CONFIG, WEIGHTS

    checkpoint = open_checkpoint(path)
    model = BartForConditionalGeneration(BartConfig.from_json_file(str(checkpoint.need(CONFIG))))
    model.load_state_dict(load_file(str(checkpoint.need(WEIGHTS))), strict=False)
    model.tie_weights()
    return model


def _epochs(dataset: Dataset, config: SFTConfig, start: int) -> Iterator[Batch]:
    """Batches without end; the first `start` of them are passed over."""
    batches = (
        batch
        for epoch in itertools.count()
        for batch in dataset.batches(config.batch_size, seed=config.seed, epoch=epoch)
    )
    return itertools.islice(batches, start, None)


def _train(
    config: SFTConfig, model: Any, dataset: Dataset, device: Any, state_path: Path
) -> dict[str, Any]:
    """Run the loop; facts of the run. The model is left with its last weights."""
    import torch

    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    peak = config.learning_rate or preset(config.preset).learning_rate
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=peak,
        betas=(0.9, 0.98),
        fused=True,
    )
    step, seconds, tokens, smooth = 0, 0.0, 0, math.nan
    if state_path.exists():
        state = torch.load(state_path, map_location=device, weights_only=True)
        if state["fingerprint"] == config.fingerprint:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"].cpu())
            step, seconds, tokens = state["step"], state["seconds"], state["tokens"]
            smooth = state["loss"]
            log.info("sft_resumed", step=step, seconds=round(seconds))

    def save() -> None:
        temporary = state_path.with_suffix(".tmp")
        torch.save(
            {
                "fingerprint": config.fingerprint,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "rng": torch.get_rng_state(),
                "step": step,
                "seconds": seconds,
                "tokens": tokens,
                "loss": smooth,
            },
            temporary,
        )
        temporary.replace(state_path)

    limit = math.inf if config.minutes is None else config.minutes * 60
    model.train()
    batches = _epochs(dataset, config, step)
    clock = saved = time.monotonic()
    from onebar.training.progress import TrainingProgress

    with TrainingProgress(config.steps, limit, enabled=config.progress) as progress:
        try:
            while step < config.steps and seconds < limit:
                done = max(step / config.steps, seconds / limit)
                for group in optimizer.param_groups:
                    group["lr"] = peak * schedule(done, config.warmup)
                batch = next(batches)
                with torch.autocast(
                    device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"
                ):
                    loss = model(
                        input_ids=torch.from_numpy(batch.source).to(device),
                        attention_mask=torch.from_numpy(batch.mask).to(device),
                        labels=torch.from_numpy(batch.labels).to(device),
                        use_cache=False,
                    ).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                value = float(loss.detach())
                smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
                step += 1
                tokens += int(batch.mask.sum()) + int((batch.labels >= 0).sum())
                now = time.monotonic()
                seconds += now - clock
                clock = now
                progress.update(step, seconds, tokens, smooth)
                if now - saved >= config.save_every_s:
                    save()
                    saved = now
        except KeyboardInterrupt:
            save()
            log.warning("sft_interrupted", step=step, state=str(state_path))
            raise
    save()
    return {
        "steps": step,
        "batch_size": config.batch_size,
        "learning_rate": peak,
        "seed": config.seed,
        "seconds": round(seconds),
        "tokens": tokens,
        "loss": round(smooth, 4),
        "parameters": sum(p.numel() for p in model.parameters()),
    }
