"""What teaches a small model to copy: attention that is told where to look, and prompts with the
answer in them.

A pointer head beside the vocabulary would copy too, but no engine of ours runs one. Told in
training to look at the places in the prompt that hold the next token, some heads of the last
layer's cross-attention become one, and what serves is a plain BART.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from onebar.training.losses import IGNORED


class Pointing:
    """Where some heads of the last decoder layer look: `watch` one pass, then ask for the loss."""

    def __init__(self, model: Any) -> None:
        self._attention = model.get_decoder().layers[-1].encoder_attn
        self._heads = max(1, self._attention.num_heads // 2)
        self._seen: tuple[Tensor, Tensor] | None = None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Remember what the attention reads in the passes within."""

        def remember(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            hidden = named["hidden_states"] if "hidden_states" in named else arguments[0]
            states = named["key_value_states"] if "key_value_states" in named else arguments[1]
            self._seen = (hidden, states)

        handle = self._attention.register_forward_pre_hook(remember, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def loss(self, source: Tensor, mask: Tensor, labels: Tensor, specials: int) -> Tensor:
        """-log of the attention that goes to the places in `source` (B, S) which hold the label
        (B, L), mean over the labels that stand there; ids below `specials` do not count."""
        assert self._seen is not None
        hidden, states = self._seen
        attention, heads = self._attention, self._heads
        size = heads * attention.head_dim
        query = torch.nn.functional.linear(
            hidden, attention.q_proj.weight[:size], attention.q_proj.bias[:size]
        )
        key = torch.nn.functional.linear(
            states, attention.k_proj.weight[:size], attention.k_proj.bias[:size]
        )
        query = query.view(*query.shape[:2], heads, -1).transpose(1, 2)
        key = key.view(*key.shape[:2], heads, -1).transpose(1, 2)
        scores = (query @ key.transpose(2, 3)).float() * attention.scaling
        scores = scores.masked_fill(mask[:, None, None] == 0, -torch.inf)
        return pointing_loss(scores, source, labels, specials)


def pointing_loss(scores: Tensor, source: Tensor, labels: Tensor, specials: int) -> Tensor:
    """See `Pointing.loss`; `scores` (B, H, L, S) are before the softmax."""
    same = (labels[:, :, None] == source[:, None, :]) & (labels >= specials)[:, :, None]
    there = same.any(2) & (labels != IGNORED)
    if not there.any():
        return scores.sum() * 0.0
    whole = torch.logsumexp(scores, 3)
    # A row with no such place is left out below; its masked sum must only be finite.
    held = torch.logsumexp(scores.masked_fill(~same[:, None], -1e4), 3)
    each = (whole - held).mean(1)
    return (each * there).sum() / there.sum()


SMALL = 0.2
"""What layers that know nothing yet add to what they read, beside what random ones would."""
SHARP = 2.0
MATCH = 0.7
HANDED_ON = 2.0
FEWEST_HEADS = 4


def prepare(model: Any, seed: int = 0) -> None:
    """Have a model with random weights copy before it has learnt anything else.

    The width is parted: places in the first head's worth of dimensions, tokens in the middle, and
    in the last head's worth, once the first layer has run, the token before. A head of the first
    encoder layer looks at the place before its own and hands that token on; the pointing heads look
    for the place whose token before is the decoder's newest, and hand on the token there. All is
    trained like any other weight. With fewer than `FEWEST_HEADS` heads there is no room: nothing is
    done.
    """
    generator = torch.Generator().manual_seed(seed)
    encoder, decoder = model.get_encoder(), model.get_decoder()
    reader = encoder.layers[0].self_attn
    pointer = decoder.layers[-1].encoder_attn
    heads, size = pointer.num_heads, pointer.head_dim
    if heads < FEWEST_HEADS:
        return
    width = heads * size
    places, tokens, before = slice(0, size), slice(size, width - size), slice(width - size, width)
    mixing = torch.linalg.qr(torch.randn(width - 2 * size, size, generator=generator))[0].T
    turns = 0.05 + 2.75 * torch.rand(size // 2, generator=generator)
    with torch.no_grad():
        embedded = encoder.embed_tokens.weight
        embedded[:, places] = 0.0
        embedded[:, before] = 0.0
        embedded[:, tokens] *= (width / (width - 2 * size)) ** 0.5
        for half in (encoder, decoder):
            _sinusoids(half.embed_positions.weight, turns)
            for layer in half.layers:
                layer.fc2.weight *= SMALL
                layer.self_attn.out_proj.weight *= SMALL
        for layer in decoder.layers:
            layer.encoder_attn.out_proj.weight *= SMALL

        first = slice(0, size)
        for matrix in (reader.q_proj, reader.k_proj, reader.v_proj):
            matrix.weight[first] = 0.0
        reader.q_proj.weight[first, places] = SHARP * _turned_back(turns)
        reader.k_proj.weight[first, places] = torch.eye(size)
        reader.v_proj.weight[first, tokens] = mixing
        reader.out_proj.weight[:, first] = 0.0
        reader.out_proj.weight[before, first] = 1.5 * torch.eye(size)

        pointing = heads // 2
        pointer.q_proj.weight[: pointing * size] = 0.0
        pointer.k_proj.weight[: pointing * size] = 0.0
        for head in range(pointing):
            rows = slice(head * size, (head + 1) * size)
            pointer.q_proj.weight[rows, tokens] = MATCH * mixing
            pointer.k_proj.weight[rows, before] = torch.eye(size)
        rows, read = slice(0, pointing * size), slice(size, size + pointing * size)
        pointer.v_proj.weight[rows] = 0.0
        pointer.v_proj.weight[rows, read] = torch.eye(pointing * size)
        pointer.out_proj.weight[:, rows] = 0.0
        pointer.out_proj.weight[read, rows] = HANDED_ON * torch.eye(pointing * size)


def _sinusoids(weight: Any, turns: Tensor) -> None:
    """Places (N, d) as points that turn by `turns`, in the first dimensions; nothing elsewhere."""
    place = torch.arange(len(weight), dtype=torch.float32)[:, None]
    weight[:] = 0.0
    weight[:, 0 : 2 * len(turns) : 2] = math.sqrt(2) * torch.sin(place * turns)
    weight[:, 1 : 2 * len(turns) : 2] = math.sqrt(2) * torch.cos(place * turns)


def _turned_back(turns: Tensor) -> Tensor:
    """The matrix that turns a place into the one before it."""
    matrix = torch.zeros(2 * len(turns), 2 * len(turns))
    for at, turn in enumerate(turns.tolist()):
        sine, cosine = math.sin(turn), math.cos(turn)
        one, two = 2 * at, 2 * at + 1
        matrix[one, one], matrix[one, two] = cosine, -sine
        matrix[two, one], matrix[two, two] = sine, cosine
    return matrix
