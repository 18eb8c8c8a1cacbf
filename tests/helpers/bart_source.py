"""BARTs from elsewhere, small and untrained, as transformers writes them to a directory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = (
    "red blue green black white pink shoes dress lamp phone case kettle wow nice so good today "
    "hello there quality weapon a thing cheap [REJECT] title summary | search bar video café"
)
CHINESE = "连衣裙 蓝牙耳机 夏季 红色 手机壳"
BYTE_LEVEL = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
"""facebook/bart-*: and `<mask>` is the last."""


def byte_level_tokenizer(*, add_prefix_space: bool = False, pieces: int = 420) -> dict[str, Any]:
    """A `tokenizer.json` of the shape of facebook/bart-base's, its post-processor included."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=pieces,
        min_frequency=1,
        special_tokens=list(BYTE_LEVEL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f" {WORDS}", f" {CHINESE}"] * 2, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer.enable_truncation(20)
    found: dict[str, Any] = json.loads(tokenizer.to_str())
    return found


def wordpiece_vocabulary() -> list[str]:
    """A `vocab.txt` as BertTokenizer's are: [PAD] first, then unused ones, then the others."""
    special = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<s>"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    characters = sorted(set(CHINESE.replace(" ", "")) | set("[]|.,'"))
    words = sorted({word for word in WORDS.split() if word.isalpha() and word.isascii()} - {"a"})
    return [*special, *letters, *(f"##{x}" for x in letters), *characters, *words[2:]]


def bart(vocab_size: int, *, seed: int = 0, **changes: Any) -> Any:
    """A random BART of bart-base's architecture with a spread of outputs as of a trained one."""
    import torch
    from transformers import BartConfig, BartForConditionalGeneration

    torch.manual_seed(seed)
    options = {
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "max_position_embeddings": 128,
        "init_std": 0.2,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        # What bart-base's own config forces.
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 2,
    }
    model = BartForConditionalGeneration(
        BartConfig(vocab_size=vocab_size, **{**options, **changes})
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "layernorm" in name or "layer_norm" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
        model.final_logits_bias.copy_(0.5 * torch.randn_like(model.final_logits_bias))
        # Some candidates end early, some late.
        model.final_logits_bias[0, model.config.eos_token_id] = 3.0
    return model


def write_bart(directory: Path, model: Any, tokenizer: dict[str, Any] | None = None) -> Path:
    """Save a model, and a tokenizer beside it."""
    model.save_pretrained(directory)
    if tokenizer is not None:
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return directory


def change_config(directory: Path, **changes: Any) -> None:
    """Edit `config.json`; None removes a setting."""
    path = directory / "config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
