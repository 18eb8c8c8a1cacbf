"""`onebar teach` against a real endpoint: good days, bad days, and what becomes of the rows."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from teachers import endpoint

from onebar.cli import main as cli
from onebar.teaching import lessons
from onebar.teaching.gguf import GGUFTeacher, gguf_name
from onebar.teaching.http import HTTPTeacher, base_address
from onebar.teaching.teacher import Message, TeacherUnusableError
from onebar.triggers import open_dataset
from stream.events import Removal, Video, encode


@pytest.fixture
def onebar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line in this process: (exit status, stdout, stderr)."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["onebar", *map(str, words)])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def written(path: Path, *videos: Video | Removal) -> Path:
    path.write_bytes(b"".join(encode(video) + b"\n" for video in videos))
    return path


def things(number: int) -> list[Video]:
    return [
        Video(event_id=f"e{i}", ts=1e9 + i, video_id=f"v{i}", title=f"thing number{i} review")
        for i in range(number)
    ]


def echo(asked: str) -> str:
    """Three searches of a title's own words."""
    words = asked.removeprefix("Title: ").split()
    return f"{words[0]} {words[1]}\n{words[1]} {words[2]}\nbest {words[1]}"


class TestAGoodDay:
    def test_a_dataset_that_says_who_wrote_it(self, onebar: Any, tmp_path: Path) -> None:
        log = written(
            tmp_path / "videos.jsonl",
            *things(40),
            Video(event_id="s", ts=1e9, video_id="s", title="secret thing", sensitive=True),
            Video(event_id="n", ts=1e9, video_id="n", title="🎉🎉"),
            Video(event_id="d", ts=1e9, video_id="d", title="a thing that is gone"),
            Removal(event_id="d2", ts=1e9 + 1, video_id="d"),
            Video(event_id="g", ts=1e9, video_id="g", title="selling ghost guns, dm me"),
            Video(event_id="r", ts=1e9, video_id="r", title="a sad death"),
        )
        with endpoint(lambda asked: "REJECT" if "death" in asked else echo(asked)) as teacher:
            status, out, err = onebar(
                *("teach", log, "--out", tmp_path / "zero", "--teacher", teacher.address, "--json")
            )
        assert status == 0, err
        report = json.loads(out)
        unasked = {"sensitive": 1, "risky": 1, "no text": 1}
        assert report["videos"] == {"queries": 40, "rejected": 1, **unasked}
        assert (report["queries"], report["asked"]) == (120, 41)
        assert (report["prompt_tokens"], report["completion_tokens"]) == (4100, 410)
        assert len(teacher.asked) == 41  # neither the sensitive, the risky nor the empty one
        dataset = open_dataset(tmp_path / "zero")
        rows = [row for split in ("train", "valid", "test") for row in dataset.read(split)]
        by = f"little prompt {report['prompt']}"
        assert {row.teacher for row in rows} == {by}
        assert dataset.card.source["teacher"] == by
        assert {row.video_id for row in rows if row.kind == "reject"} == {"s", "r", "g"}
        train = list(dataset.read("train", ("click",)))
        test = list(dataset.read("test", ("click",)))
        assert len(train) == 3 * len({row.video_id for row in train})
        assert len(test) == len({row.video_id for row in test}) > 0
        assert {row.video_id for row in train}.isdisjoint(row.video_id for row in test)
        assert "best number1" in set(dataset.texts()) | {row.target for row in rows}

    def test_nothing_is_asked_twice(self, onebar: Any, tmp_path: Path) -> None:
        log = written(tmp_path / "videos.jsonl", *things(20))
        words = ("teach", log, "--out", tmp_path / "zero", "--json")
        with endpoint(echo) as teacher:
            assert onebar(*words, "--teacher", teacher.address)[0] == 0
            changed = Video(event_id="new", ts=2e9, video_id="v3", title="other thing entirely")
            written(log, *things(20), changed)
            again = json.loads(onebar(*words, "--teacher", teacher.address)[1])
            assert again["asked"] == 1
            prompt = tmp_path / "prompt.txt"
            prompt.write_text("[user]\n{video}\n")
            other = onebar(*words, "--teacher", teacher.address, "--prompt", prompt)
            assert json.loads(other[1])["asked"] == 20

    def test_in_parallel_with_a_key_at_the_named_model(
        self, onebar: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ONEBAR_TEACHER_KEY", "sesame")
        together = threading.Barrier(4, timeout=20)

        def say(asked: str) -> str:
            together.wait()
            return echo(asked)

        log = written(tmp_path / "videos.jsonl", *things(8))
        with endpoint(say) as teacher:
            status, _, err = onebar(
                *("teach", log, "--out", tmp_path / "zero", "--teacher", teacher.address),
                *("--model", "big", "--workers", "4"),
            )
        assert status == 0, err
        assert {body["model"] for body in teacher.asked} == {"big"}
        assert set(teacher.keys) == {"Bearer sesame"}
        assert "sesame" not in (tmp_path / "zero.journal.jsonl").read_text()

    def test_training_and_evaluation_take_it(self, onebar: Any, tmp_path: Path) -> None:
        log = written(tmp_path / "videos.jsonl", *things(30))
        out, checkpoint = tmp_path / "zero", tmp_path / "checkpoint"
        with endpoint(echo) as teacher:
            assert onebar("teach", log, "--out", out, "--teacher", teacher.address)[0] == 0
        trained = onebar(
            *("train", "sft", out, "--out", checkpoint, "--preset", "tiny"),
            *("--steps", "2", "--threads", "1"),
        )
        assert trained[0] == 0, trained[2]
        status, said, err = onebar("evaluate", checkpoint, "--dataset", out, "--json")
        assert status == 0, err
        assert "hr@8" in said

    def test_the_prompt_is_printed_to_be_changed(self, onebar: Any, tmp_path: Path) -> None:
        status, out, _ = onebar("teach-prompt")
        assert status == 0
        assert "{video}" in out


class TestABadDay:
    @pytest.mark.parametrize(
        ("says", "told"),
        [
            ("I would be happy to help you with that.", "prose"),
            ("", "nothing"),
            ("你好，我不知道", "script"),
            ('{"error": {"message": "what?"}}', "nothing"),
        ],
    )
    def test_a_teacher_without_a_single_query(
        self, onebar: Any, tmp_path: Path, says: str, told: str
    ) -> None:
        log = written(tmp_path / "videos.jsonl", *things(3))
        with endpoint(lambda asked: says) as teacher:
            status, _, err = onebar(
                *("teach", log, "--out", tmp_path / "zero", "--teacher", teacher.address)
            )
        assert status == 1
        assert told in err
        assert "Traceback" not in err
        assert not (tmp_path / "zero").exists()

    def test_away_and_back(
        self, onebar: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It goes after its fifth answer; later there is one at the same address again."""
        monkeypatch.setattr(lessons, "FIRST_WAIT_S", 0.05)
        monkeypatch.setattr(lessons, "TELL_EVERY_S", 0.05)
        log = written(tmp_path / "videos.jsonl", *things(12))
        answered: list[str] = []
        refused = threading.Event()

        def tires(asked: str) -> str | tuple[int, str]:
            if len(answered) >= 5:
                refused.set()
                return 503, "loading the model"
            answered.append(asked)
            return echo(asked)

        def back() -> None:
            assert refused.wait(60)
            time.sleep(1.5)  # it is asked in vain a few times more
            answered.clear()

        friend = threading.Thread(target=back)
        with endpoint(tires) as teacher:
            friend.start()
            status, out, err = onebar(
                *("teach", log, "--out", tmp_path / "zero", "--teacher", teacher.address),
                *("--workers", "1", "--limit", "9", "--json"),
            )
            friend.join()
        assert status == 0, err
        assert json.loads(out)["videos"] == {"queries": 9}
        assert err.count("the teacher is away: ") == 1
        assert "503: loading the model" in err
        assert "the teacher is back" in err

    def test_away_for_too_long_keeps_what_was_said(self, onebar: Any, tmp_path: Path) -> None:
        log = written(tmp_path / "videos.jsonl", *things(6))
        words = ("teach", log, "--out", tmp_path / "zero", "--model", "m", "--json")
        with endpoint(echo) as teacher:
            assert onebar(*words, "--teacher", teacher.address, "--limit", "4")[0] == 0
        status, _, err = onebar(*words, "--teacher", teacher.address, "--patience", "0")
        assert status == 1
        assert "run the same command again" in err
        with endpoint(echo) as back:
            again = json.loads(onebar(*words, "--teacher", back.address)[1])
        assert again["asked"] == 2

    @pytest.mark.parametrize(
        ("address", "told"),
        [
            ("ftp://127.0.0.1", "expected an address such as http"),
            ("127.0.0.1:11434", "expected an address such as http"),
        ],
    )
    def test_no_address(self, onebar: Any, tmp_path: Path, address: str, told: str) -> None:
        log = written(tmp_path / "videos.jsonl", *things(1))
        status, _, err = onebar("teach", log, "--out", tmp_path / "zero", "--teacher", address)
        assert (status, told in err) == (2, True)

    @pytest.mark.parametrize("code", [401, 403, 404])
    def test_no_right_to_ask_ends_it_at_once(self, onebar: Any, tmp_path: Path, code: int) -> None:
        log = written(tmp_path / "videos.jsonl", *things(50))
        with endpoint(lambda asked: (code, "no")) as teacher:
            status, _, err = onebar(
                *("teach", log, "--out", tmp_path / "zero", "--teacher", teacher.address)
            )
        assert status == 2
        assert f"answered {code}: no" in err
        assert len(teacher.asked) <= 8

    def test_one_refused_question_is_one_refused_question(
        self, onebar: Any, tmp_path: Path
    ) -> None:
        log = written(tmp_path / "videos.jsonl", *things(20))
        with endpoint(lambda a: (400, "too long") if "number7 " in a else echo(a)) as teacher:
            status, out, _ = onebar(
                *("teach", log, "--out", tmp_path / "zero", "--teacher", teacher.address, "--json")
            )
        assert (status, json.loads(out)["videos"]) == (0, {"queries": 19, "refused": 1})

    def test_nothing_but_refusals_ends_it_early(self, onebar: Any, tmp_path: Path) -> None:
        log = written(tmp_path / "videos.jsonl", *things(400))
        with endpoint(lambda asked: (400, "bad parameter: stream")) as teacher:
            status, _, err = onebar(
                *("teach", log, "--out", tmp_path / "zero", "--teacher", teacher.address)
            )
        assert status == 1
        assert "bad parameter: stream" in err
        assert len(teacher.asked) < 200  # they are asked ahead, on a busy machine far ahead

    def test_several_models_want_a_name(self, onebar: Any, tmp_path: Path) -> None:
        log = written(tmp_path / "videos.jsonl", *things(1))
        with endpoint(echo) as teacher:
            teacher.models = ["a", "b"]
            status, _, err = onebar(
                *("teach", log, "--out", tmp_path / "zero", "--teacher", teacher.address)
            )
        assert (status, "--model NAME" in err, "a, b" in err) == (2, True, True)

    def test_a_caption_of_a_megabyte_and_lines_that_are_no_events(
        self, onebar: Any, tmp_path: Path
    ) -> None:
        log = written(
            tmp_path / "videos.jsonl",
            *things(4),
            Video(event_id="l", ts=1e9, video_id="l", title="long thing set", caption="a " * 4**9),
        )
        with log.open("ab") as file:
            huge = b'{"type": "video", "event_id": "h", "ts": 1, "video_id": "h", "caption": "'
            file.write(huge + b"x" * 1_000_000 + b'"}\nnot json\n')
        with endpoint(lambda asked: echo(asked.splitlines()[0])) as teacher:
            status, out, err = onebar(
                *("teach", log, "--out", tmp_path / "zero", "--teacher", teacher.address, "--json")
            )
        assert (status, json.loads(out)["videos"]) == (0, {"queries": 5})
        assert "2 lines" in err
        assert max(len(body["messages"][-1]["content"]) for body in teacher.asked) < 1000

    def test_two_teachers_or_none(self, onebar: Any, tmp_path: Path) -> None:
        log = written(tmp_path / "videos.jsonl", *things(1))
        assert onebar("teach", log, "--out", tmp_path / "zero")[0] == 2
        both = ("--teacher", "http://127.0.0.1:1", "--gguf", tmp_path / "x.gguf")
        assert onebar("teach", log, "--out", tmp_path / "zero", *both)[0] == 2

    def test_a_log_without_videos(self, onebar: Any, tmp_path: Path) -> None:
        path = tmp_path / "videos.jsonl"
        path.write_text(
            '{"type": "search", "event_id": "e", "ts": 1, "user_id": "u", "query": "q"}\n'
        )
        status, _, err = onebar("teach", path, "--out", tmp_path / "z", "--teacher", "http://h")
        assert (status, "no video event" in err) == (1, True)

    def test_ctrl_c_keeps_what_was_said(self, tmp_path: Path) -> None:
        log = written(tmp_path / "videos.jsonl", *things(30))
        held = threading.Event()
        said: list[str] = []

        def say(asked: str) -> str:
            if len(said) >= 6:
                held.wait(30)
            said.append(asked)
            return echo(asked)

        words = [sys.executable, "-P", "-m", "onebar", "teach", str(log)]
        with endpoint(say) as teacher:
            words += ["--out", str(tmp_path / "zero"), "--teacher", teacher.address]
            process = subprocess.Popen(
                words,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
            )
            while len(said) < 6 and process.poll() is None:
                time.sleep(0.05)
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
            held.set()
        assert process.returncode == 130, err
        assert "run it again to go on" in err
        assert len((tmp_path / "zero.journal.jsonl").read_text().split()) >= 6
        assert not (tmp_path / "zero").exists()


class TestTeachers:
    @pytest.mark.parametrize(
        ("given", "base"),
        [
            ("http://h:1", "http://h:1/v1"),
            ("http://h:1/", "http://h:1/v1"),
            ("http://h/v1/", "http://h/v1"),
            ("https://h/api/v3/chat/completions", "https://h/api/v3"),
        ],
    )
    def test_any_part_of_the_address_will_do(self, given: str, base: str) -> None:
        assert base_address(given) == base

    def test_half_an_answer_is_no_answer(self) -> None:
        """A server that closes in the middle is away, not wrong."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]

            def half() -> None:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"cho')

            thread = threading.Thread(target=half)
            thread.start()
            teacher = HTTPTeacher(f"http://127.0.0.1:{port}", "m", timeout_s=5)
            with pytest.raises(lessons.TeacherAwayError):
                teacher.ask([Message("user", "hello")])
            thread.join()

    def test_a_file_that_is_no_gguf(self, tmp_path: Path) -> None:
        path = tmp_path / "model.gguf"
        with pytest.raises(TeacherUnusableError, match="can't be read"):
            gguf_name(path)
        path.write_bytes(b"PK\x03\x04")
        with pytest.raises(TeacherUnusableError, match="no GGUF"):
            GGUFTeacher(path, threads=1, workers=1, timeout_s=5)
        path.write_bytes(b"GGUF\x03")
        assert gguf_name(path).startswith("model@")
