"""One run of one stage: from its settings to a checkpoint."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from onebar.evidence.prompt import PromptConfig
from onebar.evidence.tokens import PromptTokenizer
from onebar.generator.checkpoint import (
    BOOK,
    CLICKS,
    LEXICON,
    MODEL,
    OUTPUTS,
    RANKER,
    TOKENIZER,
    Card,
    GenerationConfig,
    directory_of,
    open_checkpoint,
)
from onebar.generator.checkpoint import CARD as CHECKPOINT_CARD
from onebar.process.files import replacing
from onebar.training.batches import BatchT
from onebar.training.loop import Loop, LoopConfig, Progress, Stage, make_accelerator
from onebar.training.models.export import EXACT_WITHIN, export_checkpoint
from onebar.training.models.outputs import outputs_of
from onebar.training.models.tokenizer import train_tokenizer
from onebar.training.presets import bart_config, learning_rate, preset
from onebar.triggers import CARD as DATASET_CARD
from onebar.triggers import EmptyDatasetError, TriggerDataset, open_dataset

log = structlog.get_logger(__name__)

_NOT_OF_THE_RESULT = {"threads", "device", "save_every_s", "log_every", "progress", "curves"}
"""Settings that change how a run is watched, not what comes of it."""


BESIDE = (RANKER, LEXICON, CLICKS, BOOK)
"""Files of a checkpoint that go along with its weights from stage to stage."""


class RunConfig(LoopConfig, frozen=True, kw_only=True):
    """What every stage depends on.

    `out` is the checkpoint to write; the run's own state lies in `.OUT.training` beside it until
    the end, and a run that was interrupted goes on from there.
    """

    dataset: Path
    """A directory that `onebar dataset` wrote."""
    out: Path
    init: str | None = None
    """Where to go on from: a checkpoint with float weights, a directory of a transformers BART
    or its name on the hub. None starts from scratch, with `preset` and a tokenizer of its own."""
    preset: str = "demo"
    prompt: PromptConfig | None = None
    """None takes that of `init`, or the default."""
    generation: GenerationConfig | None = None
    weights: bool = True
    """Keep float weights in the checkpoint: needed by the torch engine and by later stages."""
    curves: Path | None = None
    """Where TensorBoard's files go; None is `curves/NAME` beside the checkpoint."""
    facts: Mapping[str, Any] = MappingProxyType({})
    """Written into the card."""

    @property
    def fingerprint(self) -> str:
        """What must be equal for a run to go on from another's state."""
        fixed = {
            name: getattr(self, name)
            for name in self.__struct_fields__
            if name not in _NOT_OF_THE_RESULT
        }
        fixed["dataset"] = (self.dataset / DATASET_CARD).read_bytes()
        fixed["init"] = parent.name if (parent := parent_card(self.init)) else self.init
        content = msgspec.json.encode(fixed, enc_hook=str, order="sorted")
        return hashlib.sha256(type(self).__name__.encode() + content).hexdigest()


class Start(Struct, frozen=True):
    """What a run begins with."""

    dataset: TriggerDataset
    model: Any
    tokenizer: PromptTokenizer
    tokenizer_path: Path
    prompt: PromptConfig
    generation: GenerationConfig
    parent: Card | None
    preset: str
    """What the model is called: a preset, or the name of a BART from elsewhere."""


def train(config: RunConfig, make_stage: Callable[[Start], Stage[BatchT]]) -> Path:
    """Run a stage and write its checkpoint; the path.

    Ctrl-C (KeyboardInterrupt) saves the state and is raised again. Raises `DatasetError`,
    `CheckpointError`; nothing half-written is left under `out`.
    """
    import torch

    accelerator = make_accelerator(config)
    torch.manual_seed(config.seed)
    directory = config.out.parent / f".{config.out.name}.training"
    directory.mkdir(parents=True, exist_ok=True)
    with accelerator.main_process_first():
        start = begin(config, directory)
    if accelerator.device.type == "cpu":
        # Prompts are short: written out, attention takes half of the time that torch's own does.
        start.model.set_attn_implementation("eager")
    stage = make_stage(start)
    loop = Loop(
        config,
        stage,
        start.model,
        peak=config.learning_rate or learning_rate(start.preset),
        accelerator=accelerator,
        directory=directory,
        curves=config.curves or config.out.parent / "curves" / config.out.name,
        fingerprint=config.fingerprint,
    )
    log.info(
        "training_started",
        stage=stage.name,
        parameters=sum(p.numel() for p in start.model.parameters()),
        device=str(accelerator.device),
        processes=accelerator.num_processes,
    )
    done = loop.run()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        export_checkpoint(
            start.model.to("cpu").eval(),
            start.tokenizer_path,
            config.out,
            preset=start.preset,
            prompt=start.prompt,
            generation=start.generation,
            training={
                "stage": stage.name,
                "fingerprint": config.fingerprint,
                "parent": start.parent.name if start.parent else config.init,
                "settings": _settings(config),
                "dataset": msgspec.to_builtins(start.dataset.card),
                "parameters": sum(p.numel() for p in start.model.parameters()),
                "steps": done.step,
                "seconds": round(done.seconds),
                "tokens": done.tokens,
                "device": _device_name(accelerator.device),
                "processes": accelerator.num_processes,
                "loss": round(done.loss, 4),
                "validation": _validation(done),
                **config.facts,
            },
            embedder=start.dataset.embedder,
            outputs=_outputs(start, config),
            beside=_beside(config.init),
            weights=config.weights,
        )
        shutil.rmtree(directory)
    accelerator.wait_for_everyone()
    return config.out


def begin(config: RunConfig, directory: Path) -> Start:
    """Open everything a run begins with; the tokenizer is made, or copied, into `directory`."""
    dataset = open_dataset(config.dataset)
    if config.init is None:
        prompt = _of(config.prompt or PromptConfig(), dataset)
        generation = config.generation or GenerationConfig(exact_within=EXACT_WITHIN)
        path = directory / TOKENIZER
        if not path.exists():
            with replacing(path, durable=False) as temporary:
                train_tokenizer(
                    _not_empty(dataset), temporary, vocab_size=preset(config.preset).vocab_size
                )
        tokenizer = generation.tokenizer(path)
        from transformers import BartForConditionalGeneration

        model = BartForConditionalGeneration(
            bart_config(preset(config.preset), tokenizer.vocab_size)
        )
        return Start(dataset, model, tokenizer, path, prompt, generation, None, config.preset)
    from onebar.training.models.pretrained import load_pretrained, source_name

    model, path = load_pretrained(config.init, directory)
    parent = parent_card(config.init)
    generation = config.generation or (
        parent.generation if parent else GenerationConfig(exact_within=EXACT_WITHIN)
    )
    prompt = _of(config.prompt or (parent.prompt if parent else PromptConfig()), dataset)
    tokenizer = generation.tokenizer(path)
    name = parent.preset if parent else source_name(config.init)
    return Start(dataset, model, tokenizer, path, prompt, generation, parent, name)


def _of(prompt: PromptConfig, dataset: TriggerDataset) -> PromptConfig:
    """The prompt config as it serves: neighbours' anchors in A where the dataset has them there."""
    return msgspec.structs.replace(prompt, neighbors=dataset.card.neighbors)


def parent_card(init: str | None) -> Card | None:
    """The card of `init` where that is a checkpoint of ours."""
    if init is None or not (directory_of(init) / CHECKPOINT_CARD).is_file():
        return None
    return open_checkpoint(init, verify=False).card


def _outputs(start: Start, config: RunConfig) -> tuple[int, ...]:
    """What queries are made of: what the dataset's are, and what the model's before were."""
    found = set(outputs_of(start.dataset, start.tokenizer))
    if start.parent is not None and config.init is not None:
        before = open_checkpoint(config.init, verify=False)
        if (path := before.optional(OUTPUTS)) is not None:
            tokens: list[str] = msgspec.json.decode(path.read_bytes())
            found.update(start.tokenizer.ids(tokens))
        elif before.optional(MODEL) is not None:
            found.update(range(start.tokenizer.vocab_size))
    return tuple(sorted(found))


def _beside(init: str | None) -> dict[str, bytes]:
    """What the checkpoint before brought that no stage changes."""
    if init is None or parent_card(init) is None:
        return {}
    before = open_checkpoint(init, verify=False)
    return {name: path.read_bytes() for name in BESIDE if (path := before.optional(name))}


def _device_name(device: Any) -> str:
    """`cpu`, or what the maker calls the GPU."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _validation(done: Progress) -> dict[str, Any] | None:
    """The losses on what was kept back, before the first step and with the best weights; None
    where nothing was."""
    if not done.best_step:
        return None
    return {
        "before": round(done.first, 4),
        "best": round(done.best, 4),
        "best_step": done.best_step,
        "last": round(done.valid, 4),
    }


def _not_empty(dataset: TriggerDataset) -> Any:
    texts = dataset.texts()
    first = next(texts, None)
    if first is None:
        raise EmptyDatasetError(f"{dataset.path} has no texts to learn a vocabulary from")
    yield first
    yield from texts


def _settings(config: RunConfig) -> dict[str, Any]:
    """What of the settings a reader of the card wants: no paths, no facts."""
    left_out = _NOT_OF_THE_RESULT | {"dataset", "out", "init", "facts", "prompt", "generation"}
    return {
        name: msgspec.to_builtins(getattr(config, name), enc_hook=str)
        for name in config.__struct_fields__
        if name not in left_out
    }
