"""`onebar bench`: the floor's arithmetic, the clients, and both commands."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from serving import serving
from typer.testing import CliRunner

from onebar.bench.caller import Caller, CallError
from onebar.bench.floor import Machine, Shape, floor_s, measure_machine
from onebar.bench.generation import measure_generation, shape_of
from onebar.bench.lookup import measure_lookups
from onebar.cli.main import app
from onebar.evidence.prompt import PromptConfig
from onebar.generator.checkpoint import open_checkpoint
from onebar.policy import StatePolicy
from stream.events import Impression, Search, Video, encode
from stream.logs.prompts import prompts_of

BASE = Shape(768, 6, 3072, 6, 3072, 32_000)
SLOW = Machine(bytes_per_s=1e10, macs_per_s=1e11)


def test_weights_are_counted_as_the_paper_of_transformers_has_them() -> None:
    layer = 4 * 768**2 + 2 * 768 * 3072
    assert BASE.encoder_weights == 6 * layer
    # A decoder layer has a second attention; two of its matrices are used once a prompt.
    assert BASE.decoder_weights + BASE.crossing_weights == 6 * (layer + 4 * 768**2) + 32_000 * 768


@given(
    tokens=st.integers(1, 500),
    steps=st.integers(1, 50),
    beams=st.integers(1, 16),
    faster=st.floats(1, 100),
)
def test_the_floor_sinks_with_the_machine_and_rises_with_the_work(
    tokens: int, steps: int, beams: int, faster: float
) -> None:
    def floor(machine: Machine, steps: int, beams: int) -> float:
        return floor_s(BASE, machine, source_tokens=tokens, steps=steps, beams=beams)

    found = floor(SLOW, steps, beams)
    quick = Machine(SLOW.bytes_per_s * faster, SLOW.macs_per_s * faster)
    assert floor(quick, steps, beams) == pytest.approx(found / faster)
    assert floor(SLOW, steps + 1, beams) > found
    assert floor(SLOW, steps, beams + 1) >= found
    assert found >= (BASE.encoder_weights + steps * BASE.decoder_weights) / SLOW.bytes_per_s


def test_the_machine_is_measured_in_a_process_of_its_own() -> None:
    machine = measure_machine(1_000_000, 1)
    assert machine.bytes_per_s > 1e8
    assert machine.macs_per_s > 1e8


def test_a_checkpoint_is_measured_whole() -> None:
    checkpoint = open_checkpoint()
    told: list[float] = []
    figures = measure_generation(
        checkpoint,
        ["hiking boots [SEP] [SEP] trail shoes [SEP]", "how to cook rice [SEP] [SEP] [SEP]"],
        rounds=2,
        told=lambda fraction, _: told.append(fraction),
    )
    assert figures.checkpoint == checkpoint.name
    assert figures.engine == "ctranslate2"
    assert 0 < figures.p50_ms <= figures.p99_ms
    assert figures.per_s > 0
    assert 0 < figures.steps <= checkpoint.card.generation.max_target_tokens
    assert figures.floor_ms is not None
    assert 0 < figures.floor_ms < figures.p50_ms
    assert told == [0.25, 0.5, 0.75, 1.0]
    assert shape_of(checkpoint).outputs == checkpoint.tokenizer().vocab_size
    with pytest.raises(ValueError, match="no prompts"):
        measure_generation(checkpoint, [])


def test_a_prompt_has_the_evidence_of_its_moment() -> None:
    video = Video(event_id="1", ts=1.0, video_id="v", title="Steep trails")
    early = Impression(event_id="0", ts=0.5, video_id="v")
    first = Impression(event_id="2", ts=2.0, video_id="v")
    search = Search(event_id="3", ts=3.0, user_id="u", query="trail shoes", video_id="v")
    second = structs.replace(first, event_id="4", ts=4.0)
    found = list(
        prompts_of(
            [early, video, first, search, second],
            PromptConfig(),
            policy=StatePolicy(showable_users=1),
        )
    )
    assert len(found) == 2
    assert "steep trails" in found[0].lower()
    assert "trail shoes" not in found[0]
    assert "trail shoes" in found[1]


@asynccontextmanager
async def answering(*answers: bytes, pause_s: float = 0.0) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that gives these answers in turn; its address, and what it was asked."""
    asked: list[str] = []

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            asked.append(request.decode())
            await asyncio.sleep(pause_s)
            writer.write(answers[(len(asked) - 1) % len(answers)])

    async with serving(visit) as port:
        yield f"http://127.0.0.1:{port}", asked


def answer(body: object, status: str = "200 OK") -> bytes:
    data = json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


CACHED, MADE = answer({"source": "cache"}), answer({"source": "generated"})


async def test_each_caller_asks_again_once_it_is_answered() -> None:
    async with answering(CACHED, MADE) as (url, asked):
        figures = await measure_lookups(
            url, ["/a", "/b"], seconds=0.2, callers=3, headers={"X-API-Key": "k"}
        )
    assert figures.answers == len(asked)
    assert set(figures.sources) == {"cache", "generated"}
    assert 0 < figures.p50_ms <= figures.p99_ms <= figures.longest_ms
    assert all("X-API-Key: k\r\n" in request for request in asked)
    assert {request.split()[1] for request in asked} == {"/a", "/b"}


async def test_at_a_rate_falling_behind_is_part_of_the_latency() -> None:
    async with answering(CACHED, pause_s=0.02) as (url, asked):
        # One caller manages 50 a second of the 200 that are due.
        figures = await measure_lookups(url, ["/a"], seconds=0.1, callers=1, rate=200)
    assert figures.answers == len(asked) == 20
    assert figures.longest_ms >= 250


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (answer({"detail": "no key"}, "401 Unauthorized"), "401 Unauthorized.*no key"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "no Content-Length"),
    ],
)
async def test_an_answer_that_is_no_200_ends_it(wrong: bytes, told: str) -> None:
    async with answering(wrong) as (url, _):
        with pytest.raises(CallError, match=told):
            await measure_lookups(url, ["/a"], seconds=5, callers=2, rate=50)


@pytest.mark.parametrize("address", ["127.0.0.1:80", "ftp://host", "http://", ""])
def test_an_address_that_is_none_is_named(address: str) -> None:
    with pytest.raises(ValueError, match="expected http"):
        Caller(address)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["bench", *arguments])
    return done.exit_code, done.output


def test_the_generation_command_measures_the_shipped_checkpoint() -> None:
    assert run("generation", "--threads", "9999")[0] == 2
    code, said = run("generation", "--prompts", "2", "--rounds", "1", "--threads", "1", "--json")
    assert code == 0, said
    found = json.loads(said.splitlines()[-1])
    assert found["prompts"] == 2
    assert found["per_s"] > 0


def test_a_log_without_prompts_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(encode(Search(event_id="1", ts=1.0, user_id="u", query="boots")) + b"\n")
    done = CliRunner().invoke(app, ["bench", "generation", "--log", str(log)])
    assert type(done.exception).__name__ == "NoPromptsError"


@contextmanager
def answering_aside(*answers: bytes) -> Iterator[tuple[str, list[str]]]:
    """`answering` on an event loop of its own, for commands that have one too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    served = answering(*answers)
    try:
        yield asyncio.run_coroutine_threadsafe(served.__aenter__(), loop).result(30)
        asyncio.run_coroutine_threadsafe(served.__aexit__(None, None, None), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def test_the_lookup_command_asks_for_what_the_feed_shows() -> None:
    feed = answer({"videos": [{"video_id": "v 1"}, {"video_id": "v2"}]})
    with answering_aside(feed, *[CACHED] * 10_000) as (url, asked):
        code, said = run("lookup", url, "--seconds", "0.2", "--json")
    assert code == 0, said
    assert json.loads(said.splitlines()[-1])["sources"] == {"cache": len(asked) - 1}
    assert "video_id=v+1" in asked[1]


def test_the_lookup_command_takes_pairs_from_a_file(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("v1\tu 1\nv2\n\n")
    with answering_aside(CACHED) as (url, asked):
        code, said = run("lookup", url, "--seconds", "0.2", "--pairs", str(pairs))
    assert code == 0, said
    assert {path_of(request) for request in asked} == {
        "/v1/queries?video_id=v1&budget_ms=0&user_id=u+1",
        "/v1/queries?video_id=v2&budget_ms=0",
    }


def path_of(request: str) -> str:
    return request.split()[1]


@pytest.mark.parametrize("arguments", [("http://127.0.0.1:9",), ("nowhere",)])
def test_a_server_that_is_not_there_is_told_in_one_line(arguments: Sequence[str]) -> None:
    code, said = run("lookup", *arguments)
    assert code == 1
    assert "can't be measured" in said
