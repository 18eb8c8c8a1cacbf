"""What is said under real text that nothing here was trained or tuned on, beside honest baselines.

    python benchmarks/open_sets.py --data DIRECTORY --out docs/open-sets.md
    python benchmarks/open_sets.py --data DIRECTORY --teacher http://127.0.0.1:8000
    python benchmarks/open_sets.py --data DIRECTORY --only everyday --show

DIRECTORY lies outside the repository and holds any of `everyday_videos.jsonl` (made-up posts with
the words of a right query), `chorus_ratings.jsonl` (English product titles), `kuaisearch_demo`
(Chinese ones), `qbqtc_dev.json` (Chinese pages) and `kuairec_captions.jsonl` (captions without
queries); what is missing is left out. Nothing of them enters the page but figures.

A checkpoint answers as serving does: prompt, beam, and the choice among all candidates. Beside it:
the title as it is; keywords (YAKE in English, noun spans in Chinese); the likeliest spans of the
title by the counts of another part of the same set; and, where there is one, a teacher as in
`onebar teach`, on a sample. Whether the first query under a caption fits it is the teacher's
judgement, and how often the teacher judges rightly is measured on graded pairs.

Answers are kept in `--work` under what gave them; an interrupted run goes on from there.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from open_answers import (
    Answered,
    Answerer,
    checkpoint_answers,
    keywords,
    likeliest_spans,
    teacher_answers,
    titles,
)
from open_judge import Judge, Verdicts, judged_pairs
from open_texts import OpenSet, Row, read_sets

from onebar.generator.checkpoint import SHIPPED, open_checkpoint
from onebar.process.console import progress, say
from onebar.teaching.journal import Journal
from onebar.teaching.teacher import Teacher

K = 8
CHUNK = 50
"""Texts answered between two lines of what is kept."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, action="append", default=[])
    parser.add_argument("--limit", type=int, default=250, help="titles a set; QBQTC has 4 times")
    parser.add_argument("--only", action="append", default=[], help="names of sets")
    parser.add_argument("--teacher", help="an OpenAI-compatible endpoint")
    parser.add_argument("--model")
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sample", type=int, default=60, help="texts that a teacher is asked of")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir(), "onebar-open"))
    parser.add_argument("--out", type=Path, help="the page to write")
    parser.add_argument("--show", action="store_true", help="print what is said")
    options = parser.parse_args()
    sets = read_sets(options.data, options.limit, options.only)
    if not sets:
        sys.exit(f"open_sets.py: {options.data} holds none of the sets")
    options.work.mkdir(parents=True, exist_ok=True)
    teacher = make_teacher(options)
    journal = Journal(options.work / "teacher.jsonl")
    lines: list[str] = []
    try:
        for each in sets:
            answered = answer_set(each, options, teacher, journal)
            verdicts = judge_set(each, answered, options, teacher, journal)
            table = each.table(answered, verdicts)
            print("\n".join(table), flush=True)
            lines += [*table, ""]
            if options.show:
                show(each, answered)
        if teacher is not None and not options.only:
            table = judged_pairs(options.data, Judge(teacher, journal), options.sample)
            print("\n".join(table), flush=True)
            lines += [*table, ""]
    finally:
        journal.close()
    if options.out is not None:
        options.out.write_text(page(lines), "utf-8")


def make_teacher(options: argparse.Namespace) -> Teacher | None:
    if options.gguf is not None:
        from onebar.teaching.gguf import GGUFTeacher

        return GGUFTeacher(options.gguf, threads=options.threads, workers=4, timeout_s=600)
    if options.teacher:
        from onebar.teaching.http import HTTPTeacher

        return HTTPTeacher(options.teacher, options.model, timeout_s=600)
    return None


def answer_set(
    each: OpenSet, options: argparse.Namespace, teacher: Teacher | None, journal: Journal
) -> dict[str, list[Answered]]:
    """What each method says of the rows of a set. A teacher is asked of the first rows only."""
    found: dict[str, list[Answered]] = {}
    for path in options.checkpoint or [SHIPPED]:
        name = open_checkpoint(path).name
        say(f"{each.name}: {name}")
        found[f"checkpoint {name}"] = kept(
            options.work, f"checkpoint {path.resolve()} {name}", each.rows,
            lambda path=path: checkpoint_answers(path, K, options.threads),
        )  # fmt: skip
    found["the title itself"] = titles(each.rows)
    found["keywords of the text"] = keywords(each.rows, K)
    if each.learnt_from:
        found["likeliest spans"] = likeliest_spans(each, K)
    if teacher is not None:
        # The one set that is small and not of one kind is asked of as a whole.
        rows = each.rows if each.lang == "both" else each.rows[: options.sample]
        name = f"teacher {teacher.name}"
        with progress(f"{each.name}: {name}") as update:
            found[name] = teacher_answers(teacher, journal, rows, update)
    return found


def judge_set(
    each: OpenSet,
    answered: dict[str, list[Answered]],
    options: argparse.Namespace,
    teacher: Teacher | None,
    journal: Journal,
) -> dict[str, Verdicts]:
    """For a set without queries: whether the first query fits, by the teacher."""
    if teacher is None or each.has_queries:
        return {}
    judge = Judge(teacher, journal)
    found = {}
    for name, answers in answered.items():
        pairs = list(zip(each.rows, answers, strict=False))[: options.sample]
        with progress(f"{each.name}: judging {name}") as update:
            found[name] = judge.first_queries(pairs, update)
    return found


def kept(
    work: Path, method: str, rows: Sequence[Row], make: Callable[[], Answerer]
) -> list[Answered]:
    """The answers to rows, those that are kept from an earlier run taken from there."""
    path = work / f"{hashlib.sha256(method.encode()).hexdigest()[:16]}.jsonl"
    known: dict[str, Answered] = {}
    if path.exists():
        for line in path.read_bytes().splitlines():
            try:
                answered = msgspec.json.decode(line, type=Answered)
            except msgspec.DecodeError:  # cut off when the run was killed
                continue
            known[answered.key] = answered
    todo = [row for row in rows if row.key not in known]
    if todo:
        answer = make()
        with path.open("ab") as file, progress("answering") as update:
            file.write(b"\n")
            for at in range(0, len(todo), CHUNK):
                for answered in answer(todo[at : at + CHUNK]):
                    known[answered.key] = answered
                    file.write(msgspec.json.encode(answered) + b"\n")
                file.flush()
                update(min(1.0, (at + CHUNK) / len(todo)), f"{at:,} of {len(todo):,}")
    return [known[row.key] for row in rows]


def show(each: OpenSet, answered: dict[str, list[Answered]]) -> None:
    for at, row in enumerate(each.rows):
        print(f"{row.video.title or row.video.item_title or row.video.caption}")
        for name, answers in answered.items():
            if at < len(answers):
                print(f"    {name}: {' | '.join(answers[at].queries) or '-'}")


def page(lines: Sequence[str]) -> str:
    head = """# Open sets

Written by `python benchmarks/open_sets.py --data DIRECTORY --out docs/open-sets.md`; with
`--teacher` or `--gguf` there are rows of a teacher. The sets are not part of this repository;
nothing was trained or tuned on them. They are small: ± is half of a 95 % interval over titles.
*Overlap* is the F1 of character pairs between a query and what a person asked, of the best of the
eight or of the first; a hit is the very query. A teacher is asked for five queries, of a sample.

"""
    return head + "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
