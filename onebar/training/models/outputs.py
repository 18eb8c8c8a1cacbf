"""Which entries of the vocabulary a query may be made of: those that a dataset's queries use.

Most of what a small decoder computes is a score for every entry of the vocabulary, at every step
and for every beam. Entries that only ever stood in titles have next to no probability, so the
weights for CTranslate2 leave them out of what is scored; prompts are read with all of them. A list
for each prompt (`use_vmap`) is shorter still, but it left out 4 % of the probability at a step, and
another candidate was first for 6 prompts of 100; with this it is for 4 of 1,000.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from onebar.evidence.tokens import RESERVED, PromptTokenizer
from onebar.training.models.tokenizer import WIDE
from onebar.triggers import Kind, TriggerDataset

LEAST = 256
"""Never fewer: a wide beam has to choose among more entries than it holds."""
ANSWERED: tuple[Kind, ...] = ("click", "search", "reject")
BATCH = 500
REPLACEMENT = "\ufffd"
"""What bytes that form no character are decoded to."""


def output_entries(queries: Iterable[str], tokenizer: PromptTokenizer) -> tuple[int, ...]:
    """The ids that the queries use, ascending, with those of the special tokens and, where these
    are fewer than `LEAST`, the first ones of the vocabulary besides."""
    queries = iter(queries)
    used: set[int] = set(tokenizer.ids(RESERVED))
    while batch := list(islice(queries, BATCH)):
        used.update(*tokenizer.encode_targets(batch))
    others = (i for i in range(tokenizer.vocab_size) if i not in used)
    used.update(list(islice(others, max(0, LEAST - len(used)))))
    return tuple(sorted(used))


def whole_entries(tokenizer: PromptTokenizer) -> tuple[int, ...]:
    """The ids whose bytes are whole characters, ascending, with those of the special tokens: made
    of these a query can't hold half a character."""
    entries = range(tokenizer.vocab_size)
    found = {at for at in entries if REPLACEMENT not in tokenizer.decode([at])}
    return tuple(sorted(found | set(tokenizer.ids(RESERVED))))


def outputs_of(dataset: TriggerDataset, tokenizer: PromptTokenizer) -> tuple[int, ...]:
    """The ids that queries of the dataset's training part use: those that were the answer, and
    those that were preferred to others or not.

    Whole characters only, where the vocabulary has room for those that are common.
    """

    def queries() -> Iterator[str]:
        for trigger in dataset.read("train", ANSWERED):
            yield trigger.target
            yield from (preference.query for preference in trigger.preferences)

    entries = output_entries(queries(), tokenizer)
    if tokenizer.vocab_size < WIDE:
        return entries
    whole = set(whole_entries(tokenizer))
    return tuple(entry for entry in entries if entry in whole)
