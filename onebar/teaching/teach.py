"""A run of `onebar teach`: from videos to a dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from onebar.evidence.text import clean_video
from onebar.records import VideoText
from onebar.teaching.answers import read_answer
from onebar.teaching.checks import check_of, risky
from onebar.teaching.journal import Journal
from onebar.teaching.lessons import Standing, ask_all, question_key
from onebar.teaching.prompt import TeacherPrompt, describe
from onebar.teaching.rows import (
    Taught,
    Verdict,
    evidence_of,
    split_of,
    tally,
    texts,
    triggers,
    verdict,
)
from onebar.teaching.teacher import Teacher
from onebar.triggers import (
    SPLITS,
    DatasetCard,
    EmptyDatasetError,
    Split,
    Trigger,
    TriggerDataset,
    write_dataset,
)


class Subject(Struct, frozen=True):
    """A video as its event has it."""

    video_id: str
    ts: float
    video: VideoText


class TeachConfig(Struct, frozen=True, kw_only=True):
    """How a run asks, and how it shares out what it hears."""

    count: int = 5
    """Queries a video."""
    workers: int = 4
    patience_s: float = 7200.0
    """How long a teacher may be away."""
    valid: float = 0.1
    test: float = 0.1
    """Shares of the videos."""


class Report(Struct, frozen=True, kw_only=True):
    """What a run made. `videos` counts verdicts, `dropped` the queries that were not kept."""

    path: str
    teacher: str
    prompt: str
    videos: dict[str, int]
    queries: int
    dropped: dict[str, int]
    asked: int
    prompt_tokens: int
    completion_tokens: int


def teach(
    subjects: Iterable[Subject],
    teacher: Teacher,
    prompt: TeacherPrompt,
    journal: Journal,
    out: Path,
    config: TeachConfig,
    *,
    told: Callable[[Standing], None] = lambda standing: None,
) -> Report:
    """Ask the teacher what the journal doesn't know, and write the dataset.

    The dataset is made of what was said and of nothing else: the same journal gives the same rows.
    Raises what `ask_all` and `write_dataset` raise, and `EmptyDatasetError` where no video got a
    query or a reject; the journal keeps every answer then too.
    """
    cleaned = [Subject(each.video_id, each.ts, clean_video(each.video)) for each in subjects]
    keys = {
        each.video_id: question_key(each.video, prompt, teacher.name, config.count)
        for each in cleaned
        if _asked_about(each.video)
    }
    questions = {keys[each.video_id]: each.video for each in cleaned if each.video_id in keys}
    standing = ask_all(
        questions,
        teacher,
        prompt,
        journal,
        count=config.count,
        workers=config.workers,
        patience_s=config.patience_s,
        told=told,
    )
    taught = list(_taught(cleaned, keys, journal, config.count))
    verdicts, dropped = tally(taught)
    by = f"{teacher.name} prompt {prompt.digest}"
    if not verdicts["queries"]:
        raise EmptyDatasetError(
            f"{teacher.name} gave no query that fits any of {len(taught):,} videos: "
            f"{dict(verdicts)}, dropped {dict(dropped)}; look at {journal.path} for what it said"
        )
    dataset = _write(taught, by, out, config)
    return Report(
        path=str(dataset.path),
        teacher=teacher.name,
        prompt=prompt.digest,
        videos=dict(verdicts),
        queries=sum(len(each.queries) for each in taught),
        dropped=dict(dropped),
        asked=standing.asked,
        prompt_tokens=standing.prompt_tokens,
        completion_tokens=standing.completion_tokens,
    )


def _asked_about(video: VideoText) -> bool:
    return _unasked(video) is None


def _unasked(video: VideoText) -> Verdict | None:
    """What becomes of a video that no teacher is asked about; None where one is."""
    if video.sensitive:
        return "sensitive"
    if not describe(video):
        return "no text"
    return "risky" if risky(evidence_of(video)) else None


def _taught(
    cleaned: Iterable[Subject], keys: dict[str, str], journal: Journal, count: int
) -> Iterator[Taught]:
    for each in cleaned:
        key = keys.get(each.video_id)
        lesson = None if key is None else journal.get(key)
        if lesson is None:
            found = Taught(each.video_id, each.ts, each.video, _unasked(each.video) or "refused")
        elif lesson.refused:
            found = Taught(each.video_id, each.ts, each.video, "refused")
        else:
            answer = read_answer(lesson.said, check_of(evidence_of(each.video)), count=count)
            found = Taught(
                each.video_id, each.ts, each.video, verdict(answer), answer.queries, answer.dropped
            )
        yield found


def _write(taught: list[Taught], by: str, out: Path, config: TeachConfig) -> TriggerDataset:
    parts: dict[Split, list[Taught]] = {split: [] for split in SPLITS}
    for each in taught:
        parts[split_of(each.video, config.valid, config.test)].append(each)

    def of(split: Split) -> Iterator[Trigger]:
        for each in parts[split]:
            yield from triggers(each, split, by)

    card = DatasetCard(
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        source={"teacher": by, "videos": len(taught)},
        settings={"count": config.count, "valid": config.valid, "test": config.test},
    )
    return write_dataset(
        out, {split: of(split) for split in SPLITS}, texts(parts["train"]), card=card
    )
