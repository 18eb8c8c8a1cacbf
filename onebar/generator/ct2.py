"""The CPU engine: CTranslate2, int8 unless the checkpoint was exported otherwise."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from onebar.evidence.tokens import UNK, PromptTokenizer
from onebar.generator.checkpoint import MODEL, Checkpoint
from onebar.generator.engine import Engine, EngineError, ended_hypotheses, ordered
from onebar.generator.within import Within
from onebar.process.turns import stand_back
from onebar.records import Candidate

ROWS = 48
"""Most hypotheses that are decoded together: six prompts with eight beams. With fewer, weights are
read more often; with more, a prompt of `demo` took longer, one of `deep` as long."""
SCORED = 8
"""Queries that are scored for a prompt which is held within some: half a millisecond each."""
REMEMBERED = 1024
"""Prompts whose tokens are kept, so that those that waited are not read twice."""


class CTranslate2Engine(Engine):
    """Beam search by CTranslate2, computing as the checkpoint was quantised (int8 weights and
    activations, row by row, by default).

    Prompts of as many tokens are decoded together, as many as fill `ROWS`, and `workers` of such
    groups side by side. What a prompt gets can't depend on its company: 8-bit products are summed
    in whole numbers, and all that is computed in float32 has the shapes it has for one prompt.
    With another length beside it a prompt would be padded, and its float32 sums taken in another
    order: log probabilities then moved by up to 0.04. Models in other arithmetic than 8 bits,
    float32 searches, and checkpoints with a list of vocabulary entries for each prompt (a batch is
    given all of its prompts') take one prompt at a time. A candidate's score is as
    `GenerationConfig.length_penalty` says; equal scores (to 1e-5) are ordered by text.

    8-bit activations move a score by 0.02 or so, which is more than what is between the first two
    candidates of some prompts. Where they are less than `GenerationConfig.exact_within` apart, the
    prompt is searched again in float32, by a second copy of the model: the first candidate is then
    float32's, at the cost of a few slower prompts.

    A query is made of the vocabulary entries that the checkpoint was exported for
    (`onebar.training.models.outputs`), and scores are log probabilities among these.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, beam_size: int = 8, workers: int = 1, threads: int = 1
    ) -> None:
        directory = checkpoint.need(MODEL).parent
        self._shortlist = checkpoint.has_shortlist
        self._tokenizer = checkpoint.tokenizer()
        self._generation = checkpoint.card.generation
        self._model = checkpoint.name
        self._beam_size = beam_size
        self._within = self._generation.exact_within

        def load(compute_type: str, threads: int) -> Any:
            return _load(
                str(directory), compute_type=compute_type, workers=workers, threads=threads
            )

        # "default" is as exported, where the CPU can. With more than one thread in both models
        # their OpenMP threads wait for each other's cores: 20 ms a prompt instead of 2.
        self._translator = load("default", threads)
        self._exact = load("float32", 1) if self._within > 0 else None
        self._grouped = self._translator.compute_type.startswith("int8") and not self._shortlist
        self._source = _reader(self._tokenizer)

    @property
    def model(self) -> str:
        """The checkpoint's name."""
        return self._model

    @property
    def batch_limit(self) -> int:
        """Most prompts that are decoded together."""
        return self._limit(self._beam_size)

    def company(self, prompt: str) -> int:
        """Prompts with the same are decoded together: how many tokens it has. Takes some 70 µs."""
        return len(self._source(prompt))

    def _limit(self, beams: int) -> int:
        return max(1, ROWS // beams) if self._grouped else 1

    def generate(
        self, prompts: Sequence[str], k: int, within: Sequence[Within | None] = ()
    ) -> list[list[Candidate]]:
        """See `onebar.generator.engine.Engine`. The beam is as wide as `beam_size` and `k` ask
        for. CTranslate2's search can't be held to a trie: what a prompt is held within is what of
        the beam is inside, and what is near, scored (`SCORED` of it)."""
        found = self._generate(prompts, k)
        for at, each in enumerate(within):
            if each is not None:
                found[at] = self._constrained(prompts[at], k, found[at], each)
        return found

    def _constrained(
        self, prompt: str, k: int, beam: list[Candidate], within: Within
    ) -> list[Candidate]:
        said = {candidate.text for candidate in beam}
        wanted = list(dict.fromkeys((*within.more, *within.near)))
        scored = self._score(prompt, [query for query in wanted if query not in said][:SCORED])
        every = ordered([*beam, *scored])
        inside = [each for each in every if within.holds(each.text)][:k]
        return ordered([*inside, *beam]) if within.prefer else inside

    def _score(self, prompt: str, queries: Sequence[str]) -> list[Candidate]:
        """These with their log probabilities; without what is too long to be generated, or made of
        entries that the checkpoint can't say."""
        translator = self._translator
        if translator is None:
            raise EngineError("the engine is closed")
        most = self._generation.max_target_tokens - 1
        pieces = {
            query: self._tokenizer.tokens(ids)
            for query, ids in zip(queries, self._tokenizer.pieces(queries), strict=True)
            if 0 < len(ids) <= most
        }
        if not pieces:
            return []
        results = translator.score_batch(
            [self._source(prompt)] * len(pieces),
            list(pieces.values()),
            max_input_length=0,
            max_batch_size=1,
        )
        penalty = self._generation.length_penalty
        return [
            Candidate(query, min(0.0, sum(each.log_probs) / len(each.log_probs) ** penalty))
            for query, each in zip(pieces, results, strict=True)
            if UNK not in each.tokens
        ]

    def _generate(self, prompts: Sequence[str], k: int) -> list[list[Candidate]]:
        translator, exact = self._translator, self._exact
        if translator is None:
            raise EngineError("the engine is closed")
        sources = [self._source(prompt) for prompt in prompts]
        beams = max(self._beam_size, k)
        found = self._search(translator, sources, beams, self._limit(beams))
        if exact is not None:
            unsure = [at for at, each in enumerate(found) if _close(each, self._within)]
            again = self._search(exact, [sources[at] for at in unsure], beams, 1)
            for at, candidates in zip(unsure, again, strict=True):
                found[at] = candidates
        return [candidates[:k] for candidates in found]

    def _search(
        self, translator: Any, sources: list[list[str]], beams: int, limit: int
    ) -> list[list[Candidate]]:
        ended = ended_hypotheses(beams)
        begun = [
            (
                group,
                translator.translate_batch(
                    [sources[at] for at in group],
                    beam_size=beams,
                    # Fewer would end the search sooner, and with other candidates.
                    num_hypotheses=ended,
                    patience=ended / beams,
                    length_penalty=self._generation.length_penalty,
                    max_decoding_length=self._generation.max_target_tokens,
                    # 0: the default of 1 forbids an empty output and shifts every score.
                    min_decoding_length=0,
                    max_input_length=0,
                    max_batch_size=limit,
                    use_vmap=self._shortlist,
                    return_scores=True,
                    asynchronous=True,
                ),
            )
            for group in groups(list(map(len, sources)), limit)
        ]
        found: list[list[Candidate]] = [[] for _ in sources]
        for group, results in begun:
            for at, result in zip(group, results, strict=True):
                found[at] = self._candidates(result.result())
        return found

    def _candidates(self, result: Any) -> list[Candidate]:
        candidates = [
            Candidate(self._tokenizer.decode(self._tokenizer.ids(tokens)), min(0.0, score))
            for tokens, score in zip(result.hypotheses, result.scores, strict=True)
        ]
        return ordered(candidates)

    def close(self) -> None:
        """Free the model."""
        self._translator = self._exact = None


def _reader(tokenizer: PromptTokenizer) -> Callable[[str], list[str]]:
    """From a prompt to its tokens, which are kept for a while."""

    @lru_cache(REMEMBERED)
    def read(prompt: str) -> list[str]:
        [ids] = tokenizer.encode([prompt])
        return tokenizer.tokens(ids)

    return read


def groups(lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Places of equal lengths, at most `limit` together; groups in the order of their first."""
    found: list[list[int]] = []
    filling: dict[int, list[int]] = {}
    for at, length in enumerate(lengths):
        group = filling.get(length)
        if group is None or len(group) == limit:
            group = filling[length] = []
            found.append(group)
        group.append(at)
    return found


def _close(candidates: Sequence[Candidate], within: float) -> bool:
    """Whether the first two are less than `within` apart: 8 bits can't tell which is first."""
    return len(candidates) > 1 and candidates[0].score - candidates[1].score < within


def _use_avx512() -> None:
    """Have CTranslate2 use AVX-512 where the CPU has it, as it does only if told to.

    Softmax, top-k and the like were a fifth faster with it; `CT2_FORCE_CPU_ISA` set by the user
    stands. It is read once, when the first model is loaded.
    """
    try:
        told = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return
    if has_avx512(told):
        os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")


def has_avx512(cpuinfo: str) -> bool:
    """Whether the CPU of this `/proc/cpuinfo` has what CTranslate2's AVX-512 code uses."""
    flags = cpuinfo.partition("\nflags")[2].partition("\n")[0].split()
    return {"avx512f", "avx512cd", "avx512vl", "avx512bw", "avx512dq"} <= set(flags)


def _load(directory: str, *, compute_type: str, workers: int, threads: int) -> Any:
    """Load the translator inside a thread that ends.

    The threads that compute are begun in it, and have its priority (`onebar.process.turns`).
    Loaded in a thread that lives on, the OpenMP threads left behind by loading compete with
    those that generate: 3 to 8 times slower with `intra_threads=2`.
    """
    loaded: list[Any] = []
    failures: list[BaseException] = []

    def load() -> None:
        try:
            stand_back()
            _use_avx512()
            import ctranslate2

            loaded.append(
                ctranslate2.Translator(
                    directory,
                    device="cpu",
                    compute_type=compute_type,
                    inter_threads=workers,
                    intra_threads=threads,
                )
            )
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=load, name="load-ctranslate2")
    thread.start()
    thread.join()
    if failures:
        raise EngineError(f"CTranslate2 can't load {directory}: {failures[0]}") from failures[0]
    return loaded[0]
