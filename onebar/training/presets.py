"""Sizes of model by name. Deep encoder, shallow decoder: only the decoder runs step by step."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from onebar.errors import OneBarError


class Preset(Struct, frozen=True):
    """The architecture of a BART encoder-decoder trained from scratch."""

    name: str
    vocab_size: int
    d_model: int
    heads: int
    ffn: int
    encoder_layers: int
    decoder_layers: int
    max_positions: int = 256
    learning_rate: float = 1e-3
    dropout: float = 0.1


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("tiny", 1_000, 64, 2, 128, 1, 1, learning_rate=3e-3, dropout=0.0),
        Preset("mini", 4_000, 128, 4, 512, 2, 1, learning_rate=2e-3, dropout=0.0),
        Preset("demo", 12_000, 256, 4, 768, 2, 2, learning_rate=1e-3, dropout=0.0),
        Preset("deep", 16_000, 512, 8, 2048, 6, 1, learning_rate=5e-4),
        Preset("small", 16_000, 512, 8, 2048, 6, 2, learning_rate=5e-4),
        Preset("base", 32_000, 768, 12, 3072, 6, 6, max_positions=512, learning_rate=2e-4),
    )
}
"""`tiny` is for tests, `mini` for experiments on a CPU, `demo` is what ships; `deep`, `small` and
`base` (bart-base's shape) want a GPU to be trained, and `deep` the least of a CPU to serve."""
PRETRAINED_RATE = 3e-5
"""For a model that was pretrained elsewhere: higher rates undo what it knows."""


class UnknownPresetError(OneBarError, ValueError):
    """A preset that there is not. The text names those there are."""


def preset(name: str) -> Preset:
    """The preset of that name. Raises `UnknownPresetError`."""
    try:
        return PRESETS[name]
    except KeyError:
        known = ", ".join(PRESETS)
        raise UnknownPresetError(f"no preset {name!r}; there are {known}") from None


def learning_rate(name: str) -> float:
    """The peak rate of stage 1 for a preset, or for a BART from elsewhere by any other name."""
    return PRESETS[name].learning_rate if name in PRESETS else PRETRAINED_RATE


def bart_config(preset: Preset, vocab_size: int) -> Any:
    """The transformers `BartConfig` of a preset, for a tokenizer of `vocab_size` entries."""
    from transformers import BartConfig

    from onebar.evidence.tokens import BOS_ID, EOS_ID, PAD_ID

    return BartConfig(
        vocab_size=vocab_size,
        d_model=preset.d_model,
        encoder_layers=preset.encoder_layers,
        decoder_layers=preset.decoder_layers,
        encoder_attention_heads=preset.heads,
        decoder_attention_heads=preset.heads,
        encoder_ffn_dim=preset.ffn,
        decoder_ffn_dim=preset.ffn,
        max_position_embeddings=preset.max_positions,
        dropout=preset.dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        scale_embedding=True,
        init_std=preset.d_model**-0.5,
        bos_token_id=BOS_ID,
        pad_token_id=PAD_ID,
        eos_token_id=EOS_ID,
        decoder_start_token_id=EOS_ID,
        # BartConfig forces an end token of its own at the last step unless told otherwise.
        forced_bos_token_id=None,
        forced_eos_token_id=None,
        # The CTranslate2 converter asks for it by name.
        normalize_before=False,
    )
