"""Evidence becomes one compact, field-aligned prompt: `T [SEP] M [SEP] A [SEP] H` (Eq. 4)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from msgspec import Struct

from onebar.evidence.evidence import Evidence
from onebar.evidence.text import SEP, plain_line

PART = " | "
"""Between the parts of one field: sentences of T, queries of A and H."""


Form = Literal["compact", "verbose"]


class PromptConfig(Struct, frozen=True, omit_defaults=True):
    """Which fields a prompt has, how long each may be, and its form.

    A budget is in bytes of UTF-8, which is close to what a byte-level BPE pays for (4 to 5 bytes
    a token in English, 3 to 4 in Chinese), so building a prompt needs no tokenizer. The defaults
    came to 53 tokens on average and 93 at most on simulated feeds. The three `[SEP]` are there
    whatever is switched off. Part of the checkpoint: a model reads prompts of the shape it was
    trained on.
    """

    text: bool = True
    summary: bool = True
    anchors: bool = True
    history: bool = True
    text_bytes: int = 176
    summary_bytes: int = 72
    anchors_bytes: int = 112
    history_bytes: int = 56
    max_anchors: int = 8
    max_history: int = 3
    neighbors: bool = False
    """Whether the anchors of near videos stand behind the video's own in A: only where the model
    was trained with them."""
    form: Form = "compact"
    """`verbose` is the instruction in sentences that the paper compares with (its Table 4)."""


_INSTRUCTION = (
    "You write the search bar of a short-video app. Read what is known of the video below and "
    "answer with one short search query that a viewer of it would tap, in the video's language; "
    "answer reject where no query should be shown."
)
_SENTENCES = (
    "The text of the video is: {}.",
    "A summary of what is seen and heard in it: {}.",
    "Other users searched for the following after watching it: {}.",
    "The user who is watching has searched before for: {}.",
)


def _cut(text: str, budget: int) -> str:
    """The longest start of `text` that fits into `budget` bytes of UTF-8; no half characters."""
    data = text.encode("utf-8")
    return text if len(data) <= budget else data[:budget].decode("utf-8", "ignore").rstrip()


def _list_field(queries: Iterable[str], budget: int, most: int) -> str:
    """Whole queries, in order, each once, while they fit."""
    kept: list[str] = []
    left = budget
    for query in queries:
        line = plain_line(query)
        size = len(line.encode("utf-8")) + (len(PART) if kept else 0)
        if not line or line in kept:
            continue
        if size > left or len(kept) == most:
            break
        kept.append(line)
        left -= size
    return PART.join(kept)


def build_prompt(evidence: Evidence, config: PromptConfig) -> str:
    """`T [SEP] M [SEP] A [SEP] H` with exactly three `[SEP]` whatever the fields hold; or the
    same fields in the sentences of an instruction, those that hold anything.

    Special tokens in any field, in any case and behind any Unicode disguise that NFKC undoes,
    are neutralised first, so text from outside can't forge structure. Pure and deterministic:
    the same evidence and config give the same prompt.
    """
    fields = (
        _cut(plain_line(evidence.text), config.text_bytes) if config.text else "",
        _cut(plain_line(evidence.summary), config.summary_bytes) if config.summary else "",
        _list_field(evidence.anchors, config.anchors_bytes, config.max_anchors)
        if config.anchors
        else "",
        _list_field(evidence.history, config.history_bytes, config.max_history)
        if config.history
        else "",
    )
    if config.form == "compact":
        return f" {SEP} ".join(fields)
    told = (form.format(field) for form, field in zip(_SENTENCES, fields, strict=True) if field)
    return " ".join((_INSTRUCTION, *told))


def evidence_digest(prompt: str, model: str, *more: bytes) -> str:
    """What names one answer: 32 hex digits over the prompt, the model's name, and whatever else
    the answer depends on."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(model.encode("utf-8", "surrogatepass"))
    for part in (prompt.encode("utf-8", "surrogatepass"), *more):
        digest.update(b"\0")
        digest.update(part)
    return digest.hexdigest()
