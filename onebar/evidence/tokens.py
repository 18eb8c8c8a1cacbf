"""Prompts to token ids and back: one place for both engines and for training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from onebar.errors import OneBarError
from onebar.evidence.prompt import PART
from onebar.evidence.text import REJECT, SEP

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

BOS, PAD, EOS, UNK, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
RESERVED = (BOS, PAD, EOS, UNK, MASK, SEP, REJECT)
"""The special tokens of every vocabulary; in one that OneBar trained they are its first."""
BOS_ID, PAD_ID, EOS_ID, UNK_ID, MASK_ID, SEP_ID, REJECT_ID = range(len(RESERVED))
"""Their ids in a vocabulary that OneBar trained. Others: `PromptTokenizer.bos_id` and so on."""

FieldTokens = tuple[int, int, int, int]
"""The most tokens that T, M, A and H may have."""
_LISTS = (False, False, True, True)
"""Which of the fields are lists of queries."""


class TokenizerMismatchError(OneBarError, ValueError):
    """A tokenizer lacks what prompts are made of."""


def trim(fields: list[list[int]], most: int) -> None:
    """Shorten the longest field, from its end, until all together have at most `most` ids."""
    total = sum(map(len, fields))
    while total > most:
        longest = max(fields, key=len)
        second = max((len(field) for field in fields if field is not longest), default=0)
        drop = max(1, min(total - most, len(longest) - second))
        del longest[len(longest) - drop :]
        total -= drop


@lru_cache(maxsize=2)
def _read(content: bytes) -> Tokenizer:
    """The tokenizer of a `tokenizer.json`, which nobody changes.

    To read one keeps the interpreter for itself for some 30 ms: time that a process which goes on
    to another checkpoint would take from its answers. Most have the tokenizer of the one before.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(content)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


class PromptTokenizer:
    """A checkpoint's `tokenizer.json`, with its special tokens added by hand.

    Everything is read behind a space: in a byte-level vocabulary a word at the very start has
    other tokens than the same word elsewhere, and a model that copies words should not have to
    learn each of them twice.

    `field_tokens` are budgets for the fields of a prompt that has all four: T and M lose their
    ends, A and H whole queries from the first that does not fit. Raises `TokenizerMismatchError`.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_source_tokens: int,
        max_target_tokens: int,
        field_tokens: FieldTokens | None = None,
    ) -> None:
        self._tokenizer = _read(path.read_bytes())
        numbers = ((token, self._tokenizer.token_to_id(token)) for token in RESERVED)
        vocabulary = {token: number for token, number in numbers if number is not None}
        missing = [token for token in RESERVED if token not in vocabulary]
        if missing:
            raise TokenizerMismatchError(
                f"{path} has no {', '.join(missing)}: make it with onebar (`onebar train import` "
                "for a BART of another origin)"
            )
        self.bos_id = vocabulary[BOS]
        self.pad_id = vocabulary[PAD]
        self.eos_id = vocabulary[EOS]
        self.unk_id = vocabulary[UNK]
        self.mask_id = vocabulary[MASK]
        self.sep_id = vocabulary[SEP]
        self.reject_id = vocabulary[REJECT]
        self.max_source_tokens = max_source_tokens
        self.max_target_tokens = max_target_tokens
        self.field_tokens = field_tokens

    @property
    def vocab_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, prompts: Sequence[str]) -> list[list[int]]:
        """`<s> T [SEP] M [SEP] A [SEP] H </s>`, at most `max_source_tokens` ids.

        Too long a field loses what is beyond its budget, where there are budgets. Too long a
        prompt then loses the ends of its longest fields, never a field or a `[SEP]`.
        """
        encoded = []
        for prompt, encoding in zip(prompts, self._encode(prompts), strict=True):
            ids = list(encoding.ids)
            if self.field_tokens is not None:
                ids = self._within_budgets(f" {prompt}", encoding, self.field_tokens)
            if len(ids) + 2 > self.max_source_tokens:
                ids = self._fit(ids)
            # To a source of `<s> </s>` alone CTranslate2 answers nothing, with certainty.
            encoded.append([self.bos_id, *(ids or [self.sep_id]), self.eos_id])
        return encoded

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of texts alone, nothing added and nothing cut."""
        return [list(encoding.ids) for encoding in self._encode(texts)]

    def _encode(self, texts: Sequence[str]) -> list[Encoding]:
        spaced = [text if text == REJECT else f" {text}" for text in texts]
        return self._tokenizer.encode_batch(spaced, add_special_tokens=False)

    def _within_budgets(self, text: str, encoding: Encoding, budgets: FieldTokens) -> list[int]:
        """The ids with each field cut to its budget; all of them where there are not four."""
        ids: list[int] = encoding.ids
        separators = [at for at, token in enumerate(ids) if token == self.sep_id]
        if len(separators) != len(budgets) - 1:
            return list(ids)
        offsets: list[tuple[int, int]] = encoding.offsets
        kept: list[int] = []
        bounds = pairwise((-1, *separators, len(ids)))
        for (before, end), budget, is_list in zip(bounds, budgets, _LISTS, strict=True):
            start, cut = before + 1, min(end, before + 1 + budget)
            if is_list and cut < end:
                cut = _last_whole(text, offsets, start, cut)
            kept += ids[start:cut]
            kept += ids[end : end + 1]
        return kept

    def _fit(self, ids: list[int]) -> list[int]:
        fields: list[list[int]] = [[]]
        for token in ids:
            if token == self.sep_id:
                fields.append([])
            else:
                fields[-1].append(token)
        trim(fields, max(0, self.max_source_tokens - 2 - (len(fields) - 1)))
        joined = fields[0]
        for field in fields[1:]:
            joined = [*joined, self.sep_id, *field]
        return joined

    def encode_targets(self, targets: Sequence[str]) -> list[list[int]]:
        """The ids a decoder has to produce: `query </s>`, cut to `max_target_tokens` ids."""
        most = self.max_target_tokens - 1
        return [[*encoding.ids[:most], self.eos_id] for encoding in self._encode(targets)]

    def decode(self, ids: Sequence[int]) -> str:
        """The query in a decoder's output (cut at the first end token), or `[REJECT]`."""
        kept = list(ids)
        if self.eos_id in kept:
            kept = kept[: kept.index(self.eos_id)]
        if self.reject_id in kept:
            return REJECT
        text: str = self._tokenizer.decode(kept, skip_special_tokens=True)
        return text.strip()

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary entries of ids, as CTranslate2 wants them."""
        return [self._tokenizer.id_to_token(token) or UNK for token in ids]

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """The ids of vocabulary entries."""
        found = (self._tokenizer.token_to_id(token) for token in tokens)
        return [self.unk_id if token is None else token for token in found]


def _last_whole(text: str, offsets: Sequence[tuple[int, int]], start: int, cut: int) -> int:
    """The last place in [start, cut] with whole queries before it: `start`, or where the next
    token begins a `PART`. `offsets` are each token's place in the text."""
    for at in range(cut, start, -1):
        end = offsets[at - 1][1]
        # Characters of several tokens share their offsets: the second is no new start.
        if offsets[at][0] >= end and text.startswith(PART, end):
            return at
    return start
