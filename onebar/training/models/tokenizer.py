"""Training a checkpoint's tokenizer: byte-level BPE, so no text in any language is unknown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from onebar.evidence.text import SEP
from onebar.evidence.tokens import RESERVED


def train_tokenizer(texts: Iterable[str], path: Path, *, vocab_size: int) -> None:
    """Train on `texts` and write `tokenizer.json` to `path`.

    Lower case (prompts keep theirs, queries have none), words apart, digits one by one, at most
    `vocab_size` entries of which `onebar.evidence.tokens.RESERVED` are the first. Deterministic
    for the same texts in the same order.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(BPE(unk_token=None))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            # Chinese has no spaces: up to four characters may become one token, no sentence can.
            pre_tokenizers.Split(Regex(r"[\u3400-\u9fff]{1,4}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[
            # A separator takes in the space before it: three tokens less a prompt.
            AddedToken(token, normalized=False, special=True, lstrip=token == SEP)
            for token in RESERVED
        ],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(path))
