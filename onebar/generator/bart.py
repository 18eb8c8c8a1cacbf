"""BART's forward pass in plain torch, for decoding: static self-attention cache, cross-attention
keys and values computed once a prompt.

Reads `config.json` and `model.safetensors` of a checkpoint; needs no transformers. Names of the
weights are transformers' own. Shapes: B prompts, W beams, S source ids, T decoded ids, D model,
H heads, V vocabulary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from onebar.generator.checkpoint import CheckpointMismatchError

POSITION_OFFSET = 2
"""BART's learned positions begin at row 2."""
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}
"""By their names in `config.json`."""


class Architecture(Struct, frozen=True):
    """The part of `config.json` that the forward pass depends on."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    scale_embedding: bool
    activation_function: str
    decoder_start_token_id: int
    eos_token_id: int
    pad_token_id: int
    max_position_embeddings: int


class Cache:
    """What decoding remembers of B prompts with W beams each.

    `memory`: per layer, keys and values of the source, (B, H, S, D/H). `past`: per layer, keys
    and values of what was decoded, (B·W, H, most, D/H), filled up to `length`.
    """

    def __init__(
        self,
        memory: list[tuple[Tensor, Tensor]],
        hidden: Tensor,
        past: list[tuple[Tensor, Tensor]],
    ) -> None:
        self.memory = memory
        self.hidden = hidden
        self.past = past
        self.length = 0

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was, as beams are chosen."""
        end = self.length
        for keys, values in self.past:
            keys[:, :, :end] = keys[rows, :, :end]
            values[:, :, :end] = values[rows, :, :end]


class Bart:
    """An encoder-decoder with its weights on one device.

    Raises `CheckpointMismatchError` for a config that this forward pass does not follow.
    """

    def __init__(self, config: Path, weights: Path, device: torch.device) -> None:
        from safetensors.torch import load_file

        raw: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        missing = [name for name in Architecture.__struct_fields__ if name not in raw]
        if missing:
            raise CheckpointMismatchError(f"{config} does not say {', '.join(missing)}")
        self.architecture = Architecture(
            **{name: raw[name] for name in Architecture.__struct_fields__}
        )
        activation = self.architecture.activation_function
        if activation not in ACTIVATIONS:
            raise CheckpointMismatchError(
                f"{config} asks for the activation {activation!r}; there are "
                f"{', '.join(ACTIVATIONS)}"
            )
        self._activation = ACTIVATIONS[activation]
        self.weights = {
            name.removeprefix("model."): tensor
            for name, tensor in load_file(str(weights), device=str(device)).items()
        }
        names = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
        found = [name for name in (*names, "lm_head.weight") if name in self.weights]
        self.embeddings = self.weights[found[0]]
        self.device = device
        self.scale = (
            math.sqrt(self.architecture.d_model) if self.architecture.scale_embedding else 1.0
        )

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return F.layer_norm(x, (x.shape[-1],), weight, bias)

    def _embed(self, side: str, ids: Tensor, start: int) -> Tensor:
        positions = self.weights[f"{side}.embed_positions.weight"]
        first = start + POSITION_OFFSET
        x = F.embedding(ids, self.embeddings) * self.scale
        return self._norm(
            f"{side}.layernorm_embedding", x + positions[first : first + ids.shape[1]]
        )

    def _feed_forward(self, name: str, x: Tensor) -> Tensor:
        inner = self._activation(self._linear(f"{name}.fc1", x))
        return self._norm(f"{name}.final_layer_norm", x + self._linear(f"{name}.fc2", inner))

    def encode(self, source: Tensor, hidden: Tensor) -> Tensor:
        """(B, S, D) for ids (B, S), where `hidden` (B, S) is true on padding."""
        heads = self.architecture.encoder_attention_heads
        visible = ~hidden[:, None, None, :]
        x = self._embed("encoder", source, 0)
        for layer in range(self.architecture.encoder_layers):
            name = f"encoder.layers.{layer}"
            q, k, v = (
                _split(self._linear(f"{name}.self_attn.{part}_proj", x), heads) for part in "qkv"
            )
            seen = _join(F.scaled_dot_product_attention(q, k, v, attn_mask=visible))
            x = self._norm(
                f"{name}.self_attn_layer_norm",
                x + self._linear(f"{name}.self_attn.out_proj", seen),
            )
            x = self._feed_forward(name, x)
        return x

    def begin(self, source: Tensor, hidden: Tensor, *, beams: int, most: int) -> Cache:
        """Encode the prompts and make room for decoding `most` ids with `beams` beams."""
        heads = self.architecture.decoder_attention_heads
        encoded = self.encode(source, hidden)
        memory: list[tuple[Tensor, Tensor]] = []
        past: list[tuple[Tensor, Tensor]] = []
        shape = (source.shape[0] * beams, heads, most, self.architecture.d_model // heads)
        for layer in range(self.architecture.decoder_layers):
            name = f"decoder.layers.{layer}.encoder_attn"
            keys, values = (
                _split(self._linear(f"{name}.{part}_proj", encoded), heads) for part in "kv"
            )
            memory.append((keys, values))
            past.append((encoded.new_zeros(shape), encoded.new_zeros(shape)))
        return Cache(memory, hidden, past)

    def step(self, ids: Tensor, cache: Cache) -> Tensor:
        """Log probabilities (B·W, V) of what follows the newest ids (B·W, 1); grows the cache."""
        heads = self.architecture.decoder_attention_heads
        prompts = cache.hidden.shape[0]
        rows = ids.shape[0]
        at, end = cache.length, cache.length + 1
        visible = ~cache.hidden[:, None, None, :]
        x = self._embed("decoder", ids, at)
        for layer in range(self.architecture.decoder_layers):
            name = f"decoder.layers.{layer}"
            q, k, v = (
                _split(self._linear(f"{name}.self_attn.{part}_proj", x), heads) for part in "qkv"
            )
            keys, values = cache.past[layer]
            keys[:, :, at:end] = k
            values[:, :, at:end] = v
            seen = F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end])
            x = self._norm(
                f"{name}.self_attn_layer_norm",
                x + self._linear(f"{name}.self_attn.out_proj", _join(seen)),
            )
            # The beams of one prompt read the same source: they are the "sequence" here.
            q = _split(
                self._linear(f"{name}.encoder_attn.q_proj", x).view(prompts, rows // prompts, -1),
                heads,
            )
            read = F.scaled_dot_product_attention(q, *cache.memory[layer], attn_mask=visible)
            x = self._norm(
                f"{name}.encoder_attn_layer_norm",
                x + self._linear(f"{name}.encoder_attn.out_proj", _join(read).view(rows, 1, -1)),
            )
            x = self._feed_forward(name, x)
        cache.length = end
        logits = F.linear(x[:, -1], self.embeddings, self.weights.get("final_logits_bias"))
        return torch.log_softmax(logits.float(), dim=-1)


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, T, D) to (B, H, T, D/H)."""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    """(B, H, T, D/H) to (B, T, D)."""
    return x.transpose(1, 2).flatten(-2)
