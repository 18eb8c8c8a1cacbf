"""The CPU engine: CTranslate2, int8 unless the checkpoint was exported otherwise."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from feature_store.records import Candidate
from onebar.checkpoint import MODEL, Checkpoint
from onebar.engines import EngineError, ordered


class CTranslate2Engine:
    """Beam search by CTranslate2, computing as the checkpoint was quantised (int8 weights and
    activations, row by row, by default).

    Each prompt is decoded by itself, `workers` of them side by side, so what a prompt gets can't
    depend on its company: padding in a batch of 16 was seen to move int8 log probabilities by up
    to 0.04, and on a CPU such a batch took no less time a prompt than singles. A candidate's
    score is as `GenerationConfig.length_penalty` says; equal scores (to 1e-5) are ordered by text.

    Where the checkpoint has a shortlist (`onebar.training.shortlist`), a query is made of the
    vocabulary entries it allows, and scores are log probabilities among these.
    """

    batch_limit = 1
    """For `onebar.batching`: prompts one by one, so that none waits for another's decoding."""

    def __init__(
        self, checkpoint: Checkpoint, *, beam_size: int = 8, workers: int = 1, threads: int = 1
    ) -> None:
        directory = checkpoint.need(MODEL).parent
        self._shortlist = checkpoint.has_shortlist
        self._tokenizer = checkpoint.tokenizer()
        self._generation = checkpoint.card.generation
        self._model = checkpoint.name
        self._beam_size = beam_size
        self._translator: Any = _load(str(directory), workers=workers, threads=threads)

    @property
    def model(self) -> str:
        """The checkpoint's name."""
        return self._model

    def generate(self, prompts: Sequence[str], k: int) -> list[list[Candidate]]:
        """See `onebar.engines.Engine`. The beam is as wide as `beam_size` and `k` ask for."""
        translator = self._translator
        if translator is None:
            raise EngineError("the engine is closed")
        if not prompts:
            return []
        sources = [self._tokenizer.tokens(ids) for ids in self._tokenizer.encode(prompts)]
        beams = max(self._beam_size, k)
        results = translator.translate_batch(
            sources,
            beam_size=beams,
            # Fewer would end the search sooner, and with other candidates.
            num_hypotheses=beams,
            length_penalty=self._generation.length_penalty,
            max_decoding_length=self._generation.max_target_tokens,
            # 0: the default of 1 forbids an empty output and shifts every score.
            min_decoding_length=0,
            max_input_length=0,
            max_batch_size=1,
            use_vmap=self._shortlist,
            return_scores=True,
        )
        return [self._candidates(result)[:k] for result in results]

    def _candidates(self, result: Any) -> list[Candidate]:
        candidates = [
            Candidate(self._tokenizer.decode(self._tokenizer.ids(tokens)), min(0.0, score))
            for tokens, score in zip(result.hypotheses, result.scores, strict=True)
        ]
        return ordered(candidates)

    def close(self) -> None:
        """Free the model."""
        self._translator = None


def _load(directory: str, *, workers: int, threads: int) -> Any:
    """Load the translator inside a thread that ends.

    Loaded in a thread that lives on, the OpenMP threads left behind by loading compete with
    those that generate: 3 to 8 times slower with `intra_threads=2`.
    """
    loaded: list[Any] = []
    failures: list[BaseException] = []

    def load() -> None:
        try:
            import ctranslate2

            loaded.append(
                ctranslate2.Translator(
                    directory,
                    device="cpu",
                    # As exported, where the CPU can.
                    compute_type="default",
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
