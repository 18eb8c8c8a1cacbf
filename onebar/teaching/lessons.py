"""Asking a teacher about many videos: in parallel, through its absences, resumable."""

from __future__ import annotations

import hashlib
import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from onebar.errors import OneBarError
from onebar.records import VideoText
from onebar.teaching.journal import Lesson
from onebar.teaching.prompt import TeacherPrompt, describe
from onebar.teaching.teacher import (
    Message,
    Reply,
    Teacher,
    TeacherAwayError,
    TeacherError,
    TeacherRefusesError,
)

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
TELL_EVERY_S = 1.0
"""How often it is told that the teacher is away."""
REFUSALS_AT_FIRST = 8
"""So many refusals before the first answer, and it is not the questions that are wrong."""


class TeacherGoneError(OneBarError, RuntimeError):
    """The teacher was away for longer than one was ready to wait. What it said is kept."""


class Lessons(Protocol):
    """Where answers are kept: `onebar.teaching.journal.Journal`."""

    def get(self, key: str) -> Lesson | None: ...

    def add(self, lesson: Lesson) -> None: ...


class Standing(Struct):
    """How far a run is. Tokens and refusals are this run's own."""

    videos: int
    done: int = 0
    asked: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    away: str = ""
    """Why the teacher gives no answer at present."""


def question_key(video: VideoText, prompt: TeacherPrompt, teacher: str, count: int) -> str:
    """What an answer is kept under: equal questions to the same teacher have one answer."""
    asked = "\0".join((teacher, prompt.digest, str(count), describe(video)))
    return hashlib.sha256(asked.encode()).hexdigest()[:32]


def ask_all(
    questions: Mapping[str, VideoText],
    teacher: Teacher,
    prompt: TeacherPrompt,
    lessons: Lessons,
    *,
    count: int,
    workers: int,
    patience_s: float,
    told: Callable[[Standing], None] = lambda standing: None,
) -> Standing:
    """Ask each question, by key, that `lessons` has no answer to, `workers` at a time.

    A teacher that is away is asked again, less and less often, until it has been away for
    `patience_s`: then `TeacherGoneError`. `TeacherUnusableError` ends the run at once. Every answer
    is kept before the next is waited for; whatever ends the run, Ctrl-C too, loses only the
    questions in flight.
    """
    todo = [(key, video) for key, video in questions.items() if lessons.get(key) is None]
    standing = Standing(videos=len(questions), done=len(questions) - len(todo))
    told(standing)
    if not todo:
        return standing
    crowd = _Crowd(teacher, patience_s)
    crowd.start(((key, prompt.about(video, count)) for key, video in todo), min(workers, len(todo)))
    try:
        for _ in todo:
            lesson = crowd.next(lambda away: _tell_away(standing, away, told))
            lessons.add(lesson)
            standing.done += 1
            standing.asked += 1
            standing.away = ""
            standing.refused += bool(lesson.refused)
            standing.prompt_tokens += lesson.prompt_tokens
            standing.completion_tokens += lesson.completion_tokens
            if standing.refused == standing.asked == min(REFUSALS_AT_FIRST, len(todo)):
                raise TeacherRefusesError(lesson.refused)
            told(standing)
    finally:
        crowd.stop()
    return standing


def _tell_away(standing: Standing, away: str, told: Callable[[Standing], None]) -> None:
    standing.away = away
    told(standing)


class _Crowd:
    """Threads that ask. They are daemons: one that waits for a slow answer holds nobody up."""

    def __init__(self, teacher: Teacher, patience_s: float) -> None:
        self._teacher = teacher
        self._patience_s = patience_s
        self._answers: queue.SimpleQueue[Lesson | BaseException] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._heard_at = time.monotonic()
        self._away = ""

    def start(self, questions: Iterable[tuple[str, Sequence[Message]]], workers: int) -> None:
        remaining = iter(questions)

        def work() -> None:
            while not self._stopped.is_set():
                with self._lock:
                    question = next(remaining, None)
                if question is None:
                    return
                try:
                    self._answers.put(self._ask(*question))
                except BaseException as error:
                    self._answers.put(error)
                    return

        for number in range(workers):
            threading.Thread(target=work, name=f"teacher-{number}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def next(self, away: Callable[[str], None]) -> Lesson:
        """The next answer, whichever it is; `away` is told every second of a teacher's absence."""
        while True:
            try:
                found = self._answers.get(timeout=TELL_EVERY_S)
            except queue.Empty:
                if self._away:
                    away(self._away)
                continue
            if isinstance(found, BaseException):
                raise found
            return found

    def _ask(self, key: str, messages: Sequence[Message]) -> Lesson:
        wait = FIRST_WAIT_S
        while True:
            try:
                reply: Reply = self._teacher.ask(messages)
            except TeacherRefusesError as error:
                self._heard()
                return Lesson(key, refused=str(error))
            except TeacherAwayError as error:
                self._missed(error)
                # Not all at once when it is back.
                pause = max(error.retry_after_s, wait * random.uniform(0.5, 1.0))
                if self._stopped.wait(pause):
                    raise
                wait = min(wait * 2, LONGEST_WAIT_S)
            else:
                self._heard()
                return Lesson(key, reply.text, reply.prompt_tokens, reply.completion_tokens)

    def _heard(self) -> None:
        with self._lock:
            self._heard_at, self._away = time.monotonic(), ""

    def _missed(self, error: TeacherError) -> None:
        with self._lock:
            self._away = str(error)
            silent_s = time.monotonic() - self._heard_at
        if silent_s >= self._patience_s:
            raise TeacherGoneError(
                f"the teacher has been away for {silent_s:.0f} s ({error}); what it said is kept: "
                "run the same command again once it is back"
            )
