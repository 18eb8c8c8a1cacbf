"""A lexical shortlist: the vocabulary entries that a query may use, given those of its prompt.

Most of what a small decoder computes is a score for every entry of the vocabulary, at every step
and for every beam, though a query is nearly always made of common entries, of its prompt's own, and
of a few that go with them. Only those are scored (Junczys-Dowmunt et al., "Marian: Cost-effective
High-Quality Neural Machine Translation in C++", 2018, section 3.1; CTranslate2's `use_vmap`).

Probabilities are then normalised over fewer entries: scores rise a little.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import log
from pathlib import Path

from msgspec import Struct

from onebar.checkpoint import MODEL, SHORTLIST, Checkpoint, seal
from onebar.directories import staging
from onebar.prompt import PromptConfig, build_prompt
from onebar.tokens import PromptTokenizer
from onebar.training.triggers import Kind, TriggerDataset

COMMON = 50
EACH = 64
"""On a simulated feed that the shortlist had not seen these allow 900 of 8,000 entries, and with
them every entry of 97.9 % of the clicked queries; (300, 24) 742 and 96.5 %, (100, 128) 1,467 and
98.9 %."""
MOST_TRIGGERS = 50_000
ANSWERED: tuple[Kind, ...] = ("click", "search", "reject")
BATCH = 500

Ids = Sequence[int]


class Shortlist(Struct, frozen=True):
    """The `common` entries, which any query may use, and for an entry of the prompt those that it
    allows besides. An entry that is in no row allows itself."""

    common: tuple[int, ...]
    rows: Mapping[int, tuple[int, ...]]

    def allowed(self, prompt: Ids) -> set[int]:
        """What a query of a prompt may use."""
        return {*self.common, *prompt, *(j for i in prompt for j in self.rows.get(i, ()))}

    def lines(self, entries: Sequence[str]) -> Iterable[str]:
        """As CTranslate2 reads it (`vmap.txt`); `entries` is the vocabulary by id."""
        yield "\t" + " ".join(entries[j] for j in self.common)
        for i, entry in enumerate(entries):
            yield f"{entry}\t" + " ".join(entries[j] for j in (i, *self.rows.get(i, ())))


def make_shortlist(
    pairs: Iterable[tuple[Ids, Ids]],
    *,
    always: Ids = (),
    common: int = COMMON,
    each: int = EACH,
) -> Shortlist:
    """The shortlist of (prompt, query) pairs of ids. Pure.

    `common` entries are those that the most queries use, after `always`. Of the others, an entry of
    the prompt allows the `each` it says most about: by pairs that have both times the logarithm of
    how much likelier the one is with the other. Memory grows with the different pairs of entries.
    """
    used: Counter[int] = Counter()
    asked: Counter[int] = Counter()
    together: defaultdict[int, Counter[int]] = defaultdict(Counter)
    total = 0
    for prompt, query in pairs:
        total += 1
        entries = set(query)
        used.update(entries)
        for i in set(prompt):
            asked[i] += 1
            together[i].update(entries)
    ranked = sorted(used, key=lambda j: (-used[j], j))
    everywhere = tuple(dict.fromkeys((*always, *ranked[:common])))
    known = set(everywhere)

    def row(i: int) -> tuple[int, ...]:
        gains = {
            j: count * log(count * total / (asked[i] * used[j]))
            for j, count in together[i].items()
            if j not in known and j != i
        }
        likelier = (j for j in gains if gains[j] > 0)
        return tuple(sorted(likelier, key=lambda j: (-gains[j], j))[:each])

    return Shortlist(everywhere, {i: found for i in sorted(together) if (found := row(i))})


def shortlist_of(
    dataset: TriggerDataset,
    tokenizer: PromptTokenizer,
    prompt: PromptConfig,
    *,
    most: int = MOST_TRIGGERS,
    seen: Callable[[float], None] = lambda fraction: None,
) -> Shortlist:
    """The shortlist of a dataset's training part, or of `most` triggers spread over it. `seen` is
    told the fraction that was read, now and then."""
    size = dataset.size("train", ANSWERED)
    triggers = islice(dataset.read("train", ANSWERED), 0, None, -(-size // most) or 1)

    def pairs() -> Iterator[tuple[Ids, Ids]]:
        done = 0
        while batch := list(islice(triggers, BATCH)):
            prompts = [build_prompt(trigger.evidence, prompt) for trigger in batch]
            targets = [trigger.target for trigger in batch]
            encoded = tokenizer.encode(prompts), tokenizer.encode_targets(targets)
            yield from zip(*encoded, strict=True)
            done += len(batch)
            seen(done / min(size, most))

    return make_shortlist(pairs(), always=(tokenizer.eos_id, tokenizer.reject_id))


def with_shortlist(
    checkpoint: Checkpoint,
    dataset: TriggerDataset,
    out: Path,
    *,
    seen: Callable[[float], None] = lambda fraction: None,
) -> Checkpoint:
    """A copy of a checkpoint with the shortlist of a dataset, whole or not at all.

    Raises `CheckpointMismatchError` where it has no CTranslate2 weights, `DatasetError`.
    """
    checkpoint.need(MODEL)
    tokenizer = checkpoint.tokenizer()
    card = checkpoint.card
    found = shortlist_of(dataset, tokenizer, card.prompt, seen=seen)
    with staging(out) as staged:
        for name in card.files:
            (staged / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint.path / name, staged / name)
        write_shortlist(found, tokenizer, staged)
        return seal(
            staged,
            out,
            preset=card.preset,
            prompt=card.prompt,
            generation=card.generation,
            training=card.training,
        )


def write_shortlist(found: Shortlist, tokenizer: PromptTokenizer, directory: Path) -> None:
    """Write a shortlist beside the CTranslate2 weights of the checkpoint in a directory."""
    entries = tokenizer.tokens(range(tokenizer.vocab_size))
    path = directory / SHORTLIST
    path.write_text("".join(f"{line}\n" for line in found.lines(entries)), encoding="utf-8")


def allowed_counts(checkpoint: Checkpoint, prompts: Sequence[str]) -> list[int]:
    """How many vocabulary entries a checkpoint's shortlist allows each prompt.

    Raises `CheckpointMismatchError` where it has none.
    """
    tokenizer = checkpoint.tokenizer()
    with checkpoint.need(SHORTLIST).open(encoding="utf-8") as file:
        rows = {
            entry: set(allowed.split())
            for entry, _, allowed in (line.rstrip("\n").partition("\t") for line in file)
        }
    return [
        len(set().union(rows[""], *(rows[entry] for entry in set(tokenizer.tokens(ids)))))
        for ids in tokenizer.encode(list(prompts))
    ]
