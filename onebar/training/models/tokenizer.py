"""Training a checkpoint's tokenizer: byte-level BPE, so no text in any language is unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from onebar.evidence.text import SEP
from onebar.evidence.tokens import RESERVED

ALONE = r"[\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"
"""Characters of scripts that put no space between words."""
LETTERS = (
    (0x00E0, 0x00FF), (0x0103, 0x0104), (0x0111, 0x0112), (0x0129, 0x012A), (0x0169, 0x016A),
    (0x01A1, 0x01A2), (0x01B0, 0x01B1), (0x03AC, 0x03CF), (0x0430, 0x0450), (0x05D0, 0x05EB),
    (0x0621, 0x064B), (0x067E, 0x067F), (0x0686, 0x0687), (0x06A9, 0x06B0), (0x0901, 0x0970),
    (0x0981, 0x09CE), (0x0D02, 0x0D58), (0x0E01, 0x0E4F), (0x0E81, 0x0EDE), (0x1780, 0x17D4),
    (0x1EA1, 0x1EFA), (0x3041, 0x3097), (0x30A1, 0x30FD),
)  # fmt: skip
"""Alphabets whose letters are always entries, whatever the texts hold."""
COMMON = 4
"""A Chinese character that the texts have so many times is an entry, too."""


WIDE = 8_000
"""A vocabulary of so many entries has room for them."""
MOST = 6_000
"""Chinese characters, the most frequent, that are."""


def _always(counts: Counter[str]) -> list[str]:
    """The characters that must each be one entry."""
    letters = [chr(code) for first, end in LETTERS for code in range(first, end)]
    chinese = ((count, char) for char, count in counts.items() if "\u3400" <= char <= "\u9fff")
    common = [char for count, char in sorted(chinese, reverse=True) if count >= COMMON]
    return letters + common[:MOST]


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
            # Each a token of its own: a word is then made of the same tokens wherever it stands,
            # which is what copying it takes.
            pre_tokenizers.Split(Regex(ALONE), "isolated"),
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
    counts: Counter[str] = Counter()

    def counted() -> Iterator[str]:
        for text in texts:
            counts.update(text)
            yield text
        # So often that their bytes are merged before anything else is.
        if vocab_size >= WIDE:
            often = sum(counts.values()) // 20_000 + 100
            yield from (char for char in _always(counts) for _ in range(often))

    tokenizer.train_from_iterator(counted(), trainer)
    tokenizer.save(str(path))
