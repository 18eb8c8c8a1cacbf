"""What the stages ask of a transformers BART: its two halves, apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from onebar.training.losses import IGNORED


def tensors(model: Any, *arrays: Any) -> tuple[Tensor, ...]:
    """numpy arrays as tensors on the model's device."""
    import torch

    return tuple(torch.from_numpy(array).to(model.device) for array in arrays)


def encode(
    model: Any, source: Tensor | None, mask: Tensor, *, embeddings: Tensor | None = None
) -> Tensor:
    """Encoder states (B, S, d) of source ids (B, S), or of their `embeddings` (B, S, d)."""
    states: Tensor = model.get_encoder()(
        input_ids=source, attention_mask=mask, inputs_embeds=embeddings
    ).last_hidden_state
    return states


def embed(model: Any, source: Tensor) -> Tensor:
    """Token embeddings (B, S, d) as the encoder takes them."""
    embedded: Tensor = model.get_encoder().embed_tokens(source)
    return embedded


def decode(model: Any, states: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    """Logits (B, L, V) of the labels (B, L), each seen after those before it."""
    logits: Tensor = model(
        encoder_outputs=(states,),
        attention_mask=mask,
        decoder_input_ids=shifted(model, labels),
        use_cache=False,
    ).logits
    return logits


def shifted(model: Any, labels: Tensor) -> Tensor:
    """Decoder inputs (B, L): the start token, then all labels but the last."""
    ids = labels.new_empty(labels.shape)
    ids[:, 0] = model.config.decoder_start_token_id
    ids[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, model.config.pad_token_id)
    return ids


def set_dropout(model: Any, share: float) -> None:
    """Drop this share of hidden activations in every layer, from now on."""
    model.config.dropout = share
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float) and hasattr(
            module, "activation_dropout"
        ):
            module.dropout = share
    model.get_encoder().dropout = share
    model.get_decoder().dropout = share


@contextmanager
def without_dropout(model: Any) -> Iterator[None]:
    """What is computed inside is the model itself, not one of its dropout masks; gradients as
    ever."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def frozen_copy(model: Any) -> Any:
    """The model as it is now, for reading only: no dropout, no gradients."""
    import copy

    frozen = copy.deepcopy(model).eval()
    frozen.requires_grad_(False)
    return frozen
