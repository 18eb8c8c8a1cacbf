"""The models that look and listen: transformers' pipelines, any model of their kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onebar.errors import OneBarError
from onebar.evidence.text import plain_line
from onebar.process.quiet import quiet_transformers
from onebar.summaries.facets import question, read_answer, summary
from onebar.summaries.media import RATE, Media

SHORTEST_S = 0.2
"""Shorter sound is no speech, and some models fail on it."""


class SummaryModelError(OneBarError, RuntimeError):
    """A model that can't be loaded or used. The text names it."""


class Summarizer:
    """Summaries of videos by an image-text-to-text model, a speech recognition model, or both.

    `name` names both and what they are asked: another name, other summaries.
    """

    def __init__(
        self,
        vision: str | None,
        speech: str | None,
        *,
        device: str = "auto",
        most_tokens: int = 160,
    ) -> None:
        """Models by directory or name on the hub. Raises `SummaryModelError`."""
        if vision is None and speech is None:
            raise SummaryModelError("name an image-text-to-text model, a speech model, or both")
        self._vision = None if vision is None else _pipeline("image-text-to-text", vision, device)
        self._speech = (
            None if speech is None else _pipeline("automatic-speech-recognition", speech, device)
        )
        self._most_tokens = most_tokens
        self.name = f"{vision or ''}+{speech or ''}+{most_tokens}"

    def hear(self, sounds: Sequence[NDArray[np.float32]]) -> list[str]:
        """What is said in each; empty where there is no sound, or nobody to listen."""
        told = [""] * len(sounds)
        if self._speech is None:
            return told
        for at, sound in enumerate(sounds):
            if len(sound) >= SHORTEST_S * RATE:
                with quiet_transformers():
                    found = self._speech({"raw": sound, "sampling_rate": RATE})
                told[at] = plain_line(found["text"])
        return told

    def look(self, frames: Sequence[Sequence[Any]], heard: Sequence[str]) -> list[str]:
        """The summary of each video's frames, knowing what is said in it."""
        told = [""] * len(frames)
        seen = [at for at, images in enumerate(frames) if images]
        if self._vision is None or not seen:
            return [summary({"Audio": text[:160]}) if text else "" for text in heard]
        chats = [
            [
                {
                    "role": "user",
                    "content": [
                        *({"type": "image", "image": image} for image in frames[at]),
                        {"type": "text", "text": question(heard[at])},
                    ],
                }
            ]
            for at in seen
        ]
        with quiet_transformers():
            answers = self._vision(
                text=chats,
                batch_size=len(chats),
                return_full_text=False,
                generate_kwargs={"max_new_tokens": self._most_tokens, "do_sample": False},
            )
        for at, answer in zip(seen, answers, strict=True):
            [first] = answer if isinstance(answer, list) else [answer]
            told[at] = summary(read_answer(first["generated_text"]))
        return told

    def summarize(self, media: Sequence[Media]) -> list[tuple[str, str]]:
        """(summary, what is said) of each."""
        heard = self.hear([each.sound for each in media])
        return list(zip(self.look([each.frames for each in media], heard), heard, strict=True))


def _pipeline(task: str, model: str, device: str) -> Any:
    import torch
    from transformers import pipeline

    where = 0 if device == "auto" and torch.cuda.is_available() else "cpu"
    try:
        with quiet_transformers():
            return pipeline(task, model=model, device=where)
    except Exception as error:
        raise SummaryModelError(f"{model} can't be loaded for {task}: {error}") from error
