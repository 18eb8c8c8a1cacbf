"""Prompts to token ids and back: one place for both engines and for training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onebar.text import REJECT, SEP

if TYPE_CHECKING:
    from tokenizers import Encoding

BOS, PAD, EOS, UNK, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
RESERVED = (BOS, PAD, EOS, UNK, MASK, SEP, REJECT)
"""The vocabulary's first ids, in this order (0 to 6)."""
BOS_ID, PAD_ID, EOS_ID, UNK_ID, MASK_ID, SEP_ID, REJECT_ID = range(len(RESERVED))


def trim(fields: list[list[int]], most: int) -> None:
    """Shorten the longest field, from its end, until all together have at most `most` ids."""
    total = sum(map(len, fields))
    while total > most:
        longest = max(fields, key=len)
        second = max((len(field) for field in fields if field is not longest), default=0)
        drop = max(1, min(total - most, len(longest) - second))
        del longest[len(longest) - drop :]
        total -= drop


class PromptTokenizer:
    """A checkpoint's `tokenizer.json` (byte-level BPE), with its special tokens added by hand.

    Everything is read behind a space: in a byte-level vocabulary a word at the very start has
    other tokens than the same word elsewhere, and a model that copies words should not have to
    learn each of them twice.
    """

    def __init__(self, path: Path, *, max_source_tokens: int, max_target_tokens: int) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        found = tuple(self._tokenizer.id_to_token(i) for i in range(len(RESERVED)))
        if found != RESERVED:
            raise ValueError(f"{path} reserves {found}, not {RESERVED}: train it with onebar")
        self.max_source_tokens = max_source_tokens
        self.max_target_tokens = max_target_tokens

    @property
    def bos_id(self) -> int:
        return BOS_ID

    @property
    def mask_id(self) -> int:
        return MASK_ID

    @property
    def pad_id(self) -> int:
        return PAD_ID

    @property
    def eos_id(self) -> int:
        return EOS_ID

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """`<s> T [SEP] M [SEP] A [SEP] H </s>`, at most `max_source_tokens` ids.

        Too long a prompt loses the ends of its longest fields, never a field or a `[SEP]`.
        """
        encoded = []
        for encoding in self._encode(prompts):
            ids = list(encoding.ids)
            if len(ids) + 2 > self.max_source_tokens:
                ids = self._fit(ids)
            encoded.append([BOS_ID, *ids, EOS_ID])
        return encoded

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts alone, nothing added and nothing cut."""
        return [list(encoding.ids) for encoding in self._encode(texts)]

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        spaced = [text if text == REJECT else f" {text}" for text in texts]
        return self._tokenizer.encode_batch(spaced, add_special_tokens=False)

    def _fit(self, ids: list[int]) -> list[int]:
        fields: list[list[int]] = [[]]
        for token in ids:
            if token == SEP_ID:
                fields.append([])
            else:
                fields[-1].append(token)
        trim(fields, max(0, self.max_source_tokens - 2 - (len(fields) - 1)))
        joined = fields[0]
        for field in fields[1:]:
            joined = [*joined, SEP_ID, *field]
        return joined

    def encode_targets(self, targets: Sequence[str]) -> list[list[int]]:
        """The ids a decoder has to produce: `query </s>`, cut to `max_target_tokens` ids."""
        most = self.max_target_tokens - 1
        return [[*encoding.ids[:most], EOS_ID] for encoding in self._encode(targets)]

    def decode(self, ids: Sequence[int]) -> str:
        """The query in a decoder's output (cut at the first end token), or `[REJECT]`."""
        kept = list(ids)
        if EOS_ID in kept:
            kept = kept[: kept.index(EOS_ID)]
        if REJECT_ID in kept:
            return REJECT
        text: str = self._tokenizer.decode(kept, skip_special_tokens=True)
        return text.strip()

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary entries of ids, as CTranslate2 wants them."""
        return [self._tokenizer.id_to_token(token) or UNK for token in ids]

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """The ids of vocabulary entries."""
        found = (self._tokenizer.token_to_id(token) for token in tokens)
        return [UNK_ID if token is None else token for token in found]
