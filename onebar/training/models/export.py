"""From a trained model to a checkpoint directory, CTranslate2 weights included."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from onebar.evidence.prompt import PromptConfig
from onebar.evidence.tokens import BOS, EOS, MASK, PAD, UNK, PromptTokenizer
from onebar.generator.checkpoint import (
    CONFIG,
    CTRANSLATE2,
    EMBEDDER,
    LEXICON,
    RANKER,
    TOKENIZER,
    WEIGHTS,
    Checkpoint,
    CheckpointMismatchError,
    GenerationConfig,
    open_checkpoint,
    seal,
)
from onebar.process.files import staging
from onebar.process.quiet import quiet_transformers
from onebar.training.models.pretrained import load_pretrained

EXACT_WITHIN = 0.03
"""`GenerationConfig.exact_within` of a new checkpoint. With the `demo` preset 3 or 4 prompts of 100
are searched again, and of 1,000 first candidates 5 to 7 are not float32's instead of 13 to 17. 0.05
searches half as many more, and leaves 1 to 5."""


def export_checkpoint(
    model: Any,
    tokenizer_path: Path,
    out: Path,
    *,
    preset: str,
    prompt: PromptConfig,
    generation: GenerationConfig,
    training: Mapping[str, Any],
    embedder: Path | None = None,
    outputs: Sequence[int] | None = None,
    weights: bool = True,
    beside: Mapping[str, bytes] | None = None,
    quantization: str = "int8",
) -> Checkpoint:
    """Write a checkpoint of a transformers BART model to `out`, whole or not at all.

    `weights` keeps the float weights as well, for the torch engine and further training.
    `outputs` are the vocabulary's ids that CTranslate2 chooses among, all where nothing is said.
    `embedder` is the directory of what chose the histories, if an embedder did. `beside` are files
    that go with it, by name. `quantization` is one of CTranslate2's: int8,
    float32, ... Raises `CheckpointMismatchError` where model, tokenizer and lengths don't go
    together.
    """
    tokenizer = generation.tokenizer(tokenizer_path)
    _check(model.config, tokenizer)
    with staging(out) as staged:
        shutil.copyfile(tokenizer_path, staged / TOKENIZER)
        model.config.to_json_file(str(staged / CONFIG))
        convert(
            *(model, tokenizer_path, staged / CTRANSLATE2),
            quantization=quantization,
            outputs=outputs,
        )
        if embedder is not None:
            shutil.copytree(embedder, staged / EMBEDDER)
        for name, content in (beside or {}).items():
            (staged / name).write_bytes(content)
        if weights:
            _save_weights(model, staged / WEIGHTS)
        return seal(
            staged, out, preset=preset, prompt=prompt, generation=generation, training=training
        )


def export_again(
    source: Path,
    out: Path,
    *,
    outputs: Sequence[int] | None = None,
    exact_within: float | None = None,
    floor: float | None = None,
    beside: Mapping[str, bytes] | None = None,
    weights: bool = True,
) -> Checkpoint:
    """Write a checkpoint that has float weights to `out` anew, to serve: what is not said stays as
    it was, but for its float weights. These are rounded to what 8 bits hold, so that all engines
    have one model; to train on, take `source`. Raises `CheckpointError`.
    """
    if out.resolve() == source.resolve():
        raise CheckpointMismatchError(
            f"{out} is the checkpoint itself: its float weights would be lost; name another --out"
        )
    opened = open_checkpoint(source)
    card, generation = opened.card, opened.card.generation
    if exact_within is not None:
        generation = replace(generation, exact_within=exact_within)
    if floor is not None:
        generation = replace(generation, floor=floor)
    kept = {
        name: path.read_bytes() for name in (RANKER, LEXICON) if (path := opened.optional(name))
    }
    with tempfile.TemporaryDirectory() as work:
        model, tokenizer_path = load_pretrained(source, Path(work))
        round_weights(model)
        return export_checkpoint(
            model,
            tokenizer_path,
            out,
            preset=card.preset,
            prompt=card.prompt,
            generation=generation,
            training=card.training,
            embedder=opened.embedder,
            outputs=outputs,
            weights=weights,
            beside={**kept, **(beside or {})},
        )


def round_weights(model: Any) -> None:
    """Round the matrices of a model, in place, to what 8 bits a weight can say: for each row 255
    values evenly spaced between its largest and minus that, as CTranslate2 has them."""
    import torch

    with torch.no_grad():
        for module in model.modules():
            # Learned positions are an embedding too, which CTranslate2 leaves as it is.
            if type(module).__name__.endswith("PositionalEmbedding"):
                continue
            if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
                most = module.weight.abs().amax(dim=1, keepdim=True)
                scale = 127 / torch.where(most == 0, 127.0, most)
                module.weight.copy_((module.weight * scale).round() / scale)


def convert(
    model: Any,
    tokenizer_path: Path,
    out: Path,
    *,
    quantization: str,
    outputs: Sequence[int] | None = None,
) -> None:
    """Write CTranslate2 weights of a transformers BART model to the directory `out`, which score
    the entries `outputs` of the vocabulary.

    The converter is handed a copy in memory (it scales weights in place), so no file of the
    model's size is written and read again.
    """
    from ctranslate2.converters import TransformersConverter
    from transformers import PreTrainedTokenizerFast

    class InMemory(TransformersConverter):  # type: ignore[misc]
        def load_model(self, *_: Any, **__: Any) -> Any:
            return copy.deepcopy(model)

        def load_tokenizer(self, *_: Any, **__: Any) -> Any:
            return PreTrainedTokenizerFast(
                tokenizer_file=str(tokenizer_path),
                bos_token=BOS,
                eos_token=EOS,
                pad_token=PAD,
                unk_token=UNK,
                mask_token=MASK,
            )

        def _load(self) -> Any:
            spec = super()._load()
            if outputs is not None and len(outputs) < model.config.vocab_size:
                rows = list(outputs)
                spec.decoder.embeddings.weight = spec.decoder.embeddings.weight[rows]
                projection = spec.decoder.projection
                projection.weight = projection.weight[rows]
                if spec.decoder.projection.has_bias():
                    projection.bias = projection.bias[rows]
                [entries] = spec._vocabularies["target"]
                spec._vocabularies["target"] = [[entries[row] for row in rows]]
            return spec

    with tempfile.TemporaryDirectory() as scratch:
        model.config.to_json_file(str(Path(scratch) / CONFIG))
        with quiet_transformers():
            InMemory(scratch).convert(str(out), quantization=quantization)


def _check(config: Any, tokenizer: PromptTokenizer) -> None:
    """Raises `CheckpointMismatchError` where the engines could not run what would be written."""
    problems = []
    if tokenizer.vocab_size != config.vocab_size:
        problems.append(
            f"the tokenizer has {tokenizer.vocab_size:,} entries, the model {config.vocab_size:,}"
        )
    longest = max(tokenizer.max_source_tokens, tokenizer.max_target_tokens)
    if longest > config.max_position_embeddings:
        problems.append(
            f"{longest} tokens are more than its {config.max_position_embeddings} positions: "
            "shorten them in the generation config"
        )
    if config.encoder_attention_heads != config.decoder_attention_heads:
        problems.append("CTranslate2 needs as many attention heads in the decoder as before it")
    if (config.eos_token_id, config.pad_token_id) != (tokenizer.eos_id, tokenizer.pad_id):
        problems.append("its end or padding token is not that of the tokenizer")
    forced = (getattr(config, f"forced_{end}_token_id", None) for end in ("bos", "eos"))
    if any(token is not None for token in forced):
        problems.append("it forces a first or last token, which no engine of ours does")
    if problems:
        raise CheckpointMismatchError(f"this model can't be exported: {'; '.join(problems)}")


def _save_weights(model: Any, path: Path) -> None:
    """float32 weights by name, each tied tensor once."""
    from safetensors.torch import save_file

    seen: set[int] = set()
    tensors = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[name] = tensor.detach().float().contiguous().cpu()
    save_file(tensors, str(path), metadata={"format": "pt"})
