"""A checkpoint, opened to be asked: the method for a program or a notebook, without servers.

What serves is `onebar.recommending.recommend`, which reads evidence from a store and answers many
at once; here the evidence is what the caller says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from onebar.errors import OneBarError
from onebar.evidence.evidence import Evidence, assemble
from onebar.evidence.prompt import build_prompt
from onebar.evidence.text import clean_video, normalize_query
from onebar.generator.checkpoint import Card, Checkpoint, open_checkpoint
from onebar.generator.load import EngineName, load_engine
from onebar.recommending.candidates import choose, unfit
from onebar.recommending.loading import open_relevance, open_taste
from onebar.recommending.material import material
from onebar.records import Anchor, Candidate, Features, HistoryEntry, VideoText

Video = VideoText | Mapping[str, object] | str
"""The text of a video: a record, a mapping with its fields (a `video` event is one), or a title."""


class InvalidVideoError(OneBarError, ValueError):
    """A mapping that does not describe a video. The text names the field."""


class Model:
    """A checkpoint with the engine that runs it. Safe to call from several threads.

    Equal evidence gives equal candidates in the same order, alone or in company.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        engine: EngineName = "auto",
        beam_size: int = 8,
        threads: int = 1,
    ) -> None:
        self._checkpoint = checkpoint
        self._relevance = open_relevance(checkpoint)
        self._taste = open_taste(checkpoint)
        self._beam_size = max(beam_size, self._taste.beam)
        self._engine = load_engine(
            checkpoint, engine=engine, beam_size=self._beam_size, threads=threads
        )

    @property
    def name(self) -> str:
        """The checkpoint's: `PRESET-xxxxxxxx`, by what is in it."""
        return self._checkpoint.name

    @property
    def card(self) -> Card:
        """What it was trained on and how good it was found to be."""
        return self._checkpoint.card

    def evidence(
        self,
        video: Video,
        *,
        anchors: Sequence[str | Anchor] = (),
        history: Sequence[str | HistoryEntry] = (),
    ) -> Evidence:
        """What a prompt is made of: the video's text, cleaned; queries that others searched,
        strongest first; and of the user's, newest first, those that touch the video."""
        return self._assemble(_features(video, anchors, history))

    def prompt(self, evidence: Evidence) -> str:
        """The evidence in the shape that this model was trained on."""
        return build_prompt(evidence, self.card.prompt)

    def generate(self, prompts: Sequence[str], k: int = 8) -> list[list[Candidate]]:
        """What the model writes for each prompt: up to `k` candidates, best first, as they are."""
        if not 1 <= k <= self._beam_size:
            raise ValueError(f"k is 1 to {self._beam_size}, the beam size, not {k}")
        return self._engine.generate(prompts, k)

    def recommend(
        self,
        video: Video,
        *,
        anchors: Sequence[str | Anchor] = (),
        history: Sequence[str | HistoryEntry] = (),
        k: int = 8,
    ) -> tuple[Candidate, ...]:
        """At most `k` queries to show under the video, best first, as serving has them: from the
        model, the anchors, the history and the text. None where there should be none: the video is
        sensitive or about something risky, nothing is known of it, or the model rejects it."""
        features = _features(video, anchors, history)
        evidence = self._assemble(features)
        clicks = self._taste.scorer is not None
        made_from = material(features, evidence.history, clicks=clicks)
        if unfit(made_from, self._taste.risk) is not None:
            return ()
        [beam] = self.generate([self.prompt(evidence)], self._beam_size)
        return choose(made_from, beam, k, self._taste).queries

    def _assemble(self, features: Features) -> Evidence:
        config = self.card.prompt
        return assemble(
            features,
            max_anchors=config.max_anchors,
            max_history=config.max_history,
            neighbors=config.neighbors,
            relevance=self._relevance,
        )

    def close(self) -> None:
        """Free the model."""
        self._engine.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_model(
    path: Path | str | None = None,
    *,
    engine: EngineName = "auto",
    beam_size: int = 8,
    threads: int = 1,
) -> Model:
    """The checkpoint at `path`, or the one that is shipped, ready to be asked. Takes a second or
    so. Raises `onebar.generator.checkpoint.CheckpointError`."""
    return Model(open_checkpoint(path), engine=engine, beam_size=beam_size, threads=threads)


def _features(
    video: Video, anchors: Sequence[str | Anchor], history: Sequence[str | HistoryEntry]
) -> Features:
    """The same record that a store gives. What is only said in order gets numbers in that order."""
    return Features(
        text=clean_video(_record(video)),
        anchors=tuple(
            anchor
            if isinstance(anchor, Anchor)
            else Anchor(normalize_query(anchor), float(len(anchors) - at))
            for at, anchor in enumerate(anchors)
        ),
        history=tuple(
            entry
            if isinstance(entry, HistoryEntry)
            else HistoryEntry(normalize_query(entry), float(len(history) - at))
            for at, entry in enumerate(history)
        ),
    )


def _record(video: Video) -> VideoText:
    if isinstance(video, VideoText):
        return video
    if isinstance(video, str):
        return VideoText(title=video)
    try:
        return msgspec.convert(video, VideoText)
    except msgspec.ValidationError as error:
        raise InvalidVideoError(f"this describes no video: {error}") from None
