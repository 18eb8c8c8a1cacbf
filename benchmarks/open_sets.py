"""What is said under text that nothing here is trained on, beside honest baselines.

    python benchmarks/open_sets.py --data DIRECTORY --out docs/open-sets.md
    python benchmarks/open_sets.py --data DIRECTORY --teacher http://127.0.0.1:8000
    python benchmarks/open_sets.py --data DIRECTORY --only everyday --show
    python benchmarks/open_sets.py --data DIRECTORY --only qbqtc --trained CHECKPOINT

DIRECTORY lies outside the repository and holds any of `everyday_videos.jsonl` (made-up posts with
the words of a right query), `chorus_ratings.jsonl` (English product titles), `kuaisearch_demo`
(Chinese ones), `qbqtc_dev.json` (Chinese pages) and `kuairec_captions.jsonl` (captions without
queries); what is missing is left out. Nothing of them enters the page but figures.

A checkpoint answers as serving does: prompt, beam, and the choice among all candidates. One that
was trained on the training part of QBQTC (`benchmarks/qbqtc.py` says how) is asked of that set's
others only. Beside it: the title as it is; keywords (YAKE in English, noun spans in Chinese); the
likeliest spans of the title by the counts of another part of the same set; and, where there is one,
a teacher as in `onebar teach`, on a sample. Whether the first query under a caption fits it is the
teacher's judgement, and how often the teacher judges rightly is measured on graded pairs.

What a teacher says is kept in `--work`: an interrupted run goes on from there, and one whose
teacher is away reports what it has said.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from open_answers import (
    Answered,
    checkpoint_answers,
    keywords,
    likeliest_spans,
    teacher_answers,
    titles,
)
from open_judge import Judge, Verdicts, judged_pairs
from open_texts import OpenSet, read_sets

from onebar.generator.checkpoint import SHIPPED, open_checkpoint
from onebar.process.console import progress, say
from onebar.teaching.journal import Journal
from onebar.teaching.teacher import Teacher, TeacherAwayError

K = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, action="append", default=[])
    parser.add_argument(
        "--trained", type=Path, action="append", default=[],
        help="a checkpoint trained on the training part of QBQTC (benchmarks/qbqtc.py)",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, default=250, help="titles a set; QBQTC has 4 times")
    parser.add_argument("--only", action="append", default=[], help="names of sets")
    parser.add_argument("--teacher", help="an OpenAI-compatible endpoint")
    parser.add_argument("--model")
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--patience", type=float, default=10, help="minutes a teacher may be away")
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
        if teacher is not None and not all(each.has_queries for each in sets):
            try:
                table = judged_pairs(options.data, Judge(teacher, journal), options.sample)
            except TeacherAwayError as error:
                say(f"the judge was not measured: {error}")
                table = []
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
        with progress(f"{each.name}: {name}") as update:
            found[f"checkpoint {name}"] = checkpoint_answers(path, each.rows, K, update)
    for path in options.trained if each.trainable else ():
        name = f"{path.name}, of its training part"
        with progress(f"{each.name}: {name}") as update:
            found[name] = checkpoint_answers(path, each.rows, K, update)
    found["the title itself"] = titles(each.rows)
    found["keywords of the text"] = keywords(each.rows, K)
    if each.learnt_from:
        found["likeliest spans"] = likeliest_spans(each, K)
    if teacher is not None:
        # The one set that is small and not of one kind is asked of as a whole.
        rows = each.rows if each.lang == "both" else each.rows[: options.sample]
        name = f"teacher {teacher.name}"
        with progress(f"{each.name}: {name}") as update:
            said = teacher_answers(teacher, journal, rows, 60 * options.patience, update)
        if said:
            found[name] = said
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
        try:
            with progress(f"{each.name}: judging {name}") as update:
                found[name] = judge.first_queries(pairs, update)
        except TeacherAwayError as error:
            say(f"{name} was not judged: {error}")
            break
    return found


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
nothing that ships is trained on them, nor tuned but where a section says so. They are small: ± is
half of a 95 % interval over titles. *Overlap* is the F1 of character pairs between a query and what
a person asked, of the best of the eight or of the first; a hit is the very query. A teacher is
asked for five queries, of a sample.

Read with care: a title always holds its own words, so it is on topic where nobody would tap it; the
queries of the product sets are short nouns, which keywords are made of; the counts of the likeliest
spans have seen other titles of the very set, the shipped checkpoint has not. One called *of its
training part* was trained on those as [this page](pretrained.md#with-texts-and-their-queries-only)
has it, and has seen none of the titles, or queries, that it is asked of here.

"""
    return head + "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
