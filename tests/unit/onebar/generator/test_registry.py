"""The registry: whole or not at all, one change at a time, and back along its own history."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_checkpoints import damage, make

from onebar.generator import registry as module
from onebar.generator.checkpoint import (
    CARD,
    SHIPPED,
    Checkpoint,
    CheckpointCorruptError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    open_checkpoint,
)
from onebar.generator.registry import (
    Change,
    CurrentCheckpointError,
    NothingBeforeError,
    NothingPromotedError,
    Registry,
    RegistryError,
    RegistryNotFoundError,
    past,
)
from onebar.process import files
from onebar.recommending.loading import CheckpointUnusableError, prove


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("sources")
    return [make(directory / letter, letter) for letter in "abcd"]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


@pytest.fixture
def names(registry: Registry, sources: list[Path]) -> list[str]:
    return [registry.add(source)[0] for source in sources]


def test_what_is_added_is_a_copy_under_its_own_name(
    registry: Registry, sources: list[Path]
) -> None:
    source = open_checkpoint(sources[0])
    assert registry.add(sources[0]) == (source.name, True)
    assert registry.add(sources[0]) == (source.name, False)
    copy = registry.open(source.name)
    assert copy.card == source.card
    assert copy.path == registry.path / "checkpoints" / source.name
    assert registry.current() is None
    with pytest.raises(NothingPromotedError, match="models promote"):
        registry.open_current()


def test_only_what_the_card_lists_is_copied(registry: Registry, tmp_path: Path) -> None:
    source = make(tmp_path / "source", "x")
    (source / "notes.txt").write_text("mine")
    name, _ = registry.add(source)
    found = {path.name for path in registry.checkpoint_path(name).rglob("*")}
    assert found == {CARD, "tokenizer.json", "ct2", "model.bin"}


def test_what_is_damaged_comes_not_in(registry: Registry, tmp_path: Path) -> None:
    source = make(tmp_path / "source", "x")
    damage(source / "tokenizer.json")
    with pytest.raises(CheckpointCorruptError):
        registry.add(source)
    with pytest.raises(CheckpointNotFoundError):
        registry.add(tmp_path / "nothing")
    with pytest.raises(RegistryNotFoundError):
        registry.entries()


@pytest.mark.parametrize("preset", ["../../etc", "a/b", ".hidden", "", "x\ny", "词"])
def test_a_name_that_leads_elsewhere_comes_not_in(
    registry: Registry, tmp_path: Path, preset: str
) -> None:
    source = make(tmp_path / "source", "x", preset=preset)
    with pytest.raises((CheckpointMismatchError, RegistryError), match="name"):
        registry.add(source)
    assert not (tmp_path / "etc").exists()


def test_another_checkpoint_of_the_same_name_is_told(
    registry: Registry, sources: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onebar.generator.checkpoint._name", lambda card: "tiny-00000000")
    for path, text in ((registry.path.parent / "one", "1"), (registry.path.parent / "two", "2")):
        make(path, text)
    registry.add(registry.path.parent / "one")
    with pytest.raises(CheckpointMismatchError, match="other files"):
        registry.add(registry.path.parent / "two")


def test_promote_and_roll_back(registry: Registry, names: list[str]) -> None:
    a, b, c, _ = names
    for name in (a, b, c):
        assert registry.promote(name)
        assert registry.current() == name
    assert registry.rollback() == b
    assert registry.rollback() == a
    with pytest.raises(NothingBeforeError):
        registry.rollback()
    assert registry.current() == a
    registry.promote(c)
    assert registry.rollback() == a
    steps = [(change.action, change.name, change.previous) for change in registry.history()]
    assert steps == [
        ("promote", a, None),
        ("promote", b, a),
        ("promote", c, b),
        ("rollback", b, c),
        ("rollback", a, b),
        ("promote", c, a),
        ("rollback", a, c),
    ]
    assert all(change.by and change.at > 0 for change in registry.history())


def test_promoting_the_current_one_again_is_seen_but_no_change(
    registry: Registry, names: list[str]
) -> None:
    registry.promote(names[0])
    before = registry.pointer()
    assert not registry.promote(names[0])
    after = registry.pointer()
    assert before is not None
    assert after is not None
    assert before.name == after.name
    assert before != after
    assert len(registry.history()) == 1


def test_what_was_removed_is_passed_over(registry: Registry, names: list[str]) -> None:
    a, b, c, d = names
    for name in (a, b, c):
        registry.promote(name)
    registry.remove(b)
    registry.remove(d)
    with pytest.raises(CurrentCheckpointError):
        registry.remove(c)
    with pytest.raises(CheckpointNotFoundError):
        registry.remove(b)
    assert {entry.name for entry in registry.entries()} == {a, c}
    assert registry.rollback() == a


@pytest.mark.parametrize("change", ["promote", "rollback"])
def test_a_damaged_checkpoint_is_refused_and_the_pointer_stays(
    registry: Registry, names: list[str], change: str
) -> None:
    a, b, *_ = names
    registry.promote(a)
    registry.promote(b)
    damage(registry.checkpoint_path(a) / "ct2" / "model.bin")
    before = registry.pointer(), registry.history()
    with pytest.raises(CheckpointCorruptError, match=r"model\.bin"):
        registry.promote(a) if change == "promote" else registry.rollback()
    assert (registry.pointer(), registry.history()) == before


def test_a_damaged_checkpoint_is_mended_by_adding_it_again(
    registry: Registry, names: list[str], sources: list[Path]
) -> None:
    (registry.checkpoint_path(names[0]) / "tokenizer.json").unlink()
    with pytest.raises(CheckpointCorruptError):
        registry.promote(names[0])
    [entry] = [entry for entry in registry.entries() if entry.name == names[0]]
    assert "missing" in (entry.problem or "")
    assert registry.add(sources[0]) == (names[0], True)
    assert registry.promote(names[0])


def test_a_checkpoint_under_anothers_name_is_refused(registry: Registry, names: list[str]) -> None:
    shutil.rmtree(registry.checkpoint_path(names[1]))
    shutil.copytree(registry.checkpoint_path(names[0]), registry.checkpoint_path(names[1]))
    with pytest.raises(CheckpointMismatchError, match="models add"):
        registry.promote(names[1])


def test_what_does_not_serve_is_not_promoted(registry: Registry, names: list[str]) -> None:
    def refuse(checkpoint: Checkpoint) -> None:
        raise CheckpointUnusableError(f"{checkpoint.name} says nothing")

    with pytest.raises(CheckpointUnusableError):
        Registry(registry.path, prove=refuse).promote(names[0])
    assert registry.current() is None
    assert registry.history() == []


def test_the_engine_proves_a_checkpoint(registry: Registry, tmp_path: Path) -> None:
    prove(open_checkpoint(SHIPPED))
    nonsense = make(tmp_path / "nonsense", "{}")
    proving = Registry(registry.path, prove=prove)
    name, _ = proving.add(nonsense)
    with pytest.raises(CheckpointUnusableError, match=name):
        proving.promote(name)
    assert proving.current() is None


@pytest.mark.parametrize("text", ["", "\n", "../../etc", "a/b", "x" * 2000, "\x00", "-rf"])
def test_a_pointer_that_names_nothing_is_told_and_can_be_mended(
    registry: Registry, names: list[str], text: str
) -> None:
    registry.promote(names[0])
    (registry.path / "current").write_text(text)
    with pytest.raises(RegistryError, match="no checkpoint's name"):
        registry.current()
    with pytest.raises(RegistryError):
        registry.remove(names[0])
    assert not any(entry.current for entry in registry.entries())
    assert registry.promote(names[1])
    assert registry.current() == names[1]


def test_a_pointer_to_nothing_is_told(registry: Registry, names: list[str]) -> None:
    (registry.path / "current").write_text("tiny-ffffffff\n")
    with pytest.raises(CheckpointNotFoundError, match="models list"):
        registry.open_current()
    [entry] = [entry for entry in registry.entries() if entry.current]
    assert entry.problem


def test_what_was_done_by_hand_is_part_of_the_history(registry: Registry, names: list[str]) -> None:
    a, b, c, _ = names
    registry.promote(a)
    (registry.path / "current").write_text(f"{b}\n")
    registry.promote(c)
    assert [change.action for change in registry.history()] == ["promote", "found", "promote"]
    assert registry.rollback() == b
    assert registry.rollback() == a


def test_a_line_cut_short_harms_no_other(registry: Registry, names: list[str]) -> None:
    a, b, *_ = names
    registry.promote(a)
    with (registry.path / "history.jsonl").open("ab") as file:
        file.write(b'{"at":1.0,"action":"pro')
    registry.promote(b)
    assert [change.name for change in registry.history()] == [a, b]
    assert registry.rollback() == a


class PowerCutError(BaseException):
    """Nothing that follows is done."""


def counting(limit: int) -> Callable[[Path], None]:
    """Stands in for `sync`: the power goes at call number `limit`."""
    calls = 0

    def sync(path: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == limit:
            raise PowerCutError

    return sync


@pytest.mark.parametrize("action", ["add", "promote", "rollback", "remove"])
@pytest.mark.parametrize("limit", range(1, 7))
def test_a_crash_at_any_step_leaves_it_sound(
    registry: Registry,
    names: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    limit: int,
) -> None:
    a, b, c, d = names
    registry.promote(a)
    registry.promote(b)
    fresh = make(tmp_path / "fresh", "fresh")
    steps: dict[str, Callable[[], object]] = {
        "add": lambda: registry.add(fresh),
        "promote": lambda: registry.promote(c),
        "rollback": registry.rollback,
        "remove": lambda: registry.remove(d),
    }
    allowed = {"promote": {b, c}, "rollback": {a, b}}.get(action, {b})
    with monkeypatch.context() as patched:
        sync = counting(limit)
        patched.setattr(module, "sync", sync)
        patched.setattr(files, "sync", sync)
        patched.setattr(module.shutil, "rmtree", lambda *_, **__: None)  # as a kill would
        with contextlib.suppress(PowerCutError):
            steps[action]()
    current = registry.current()
    assert current in allowed
    listed = {entry.name: entry for entry in registry.entries(verify=True)}
    assert all(entry.problem is None for entry in listed.values())
    assert {a, b, c} <= listed.keys()
    # It goes on as if nothing had happened.
    name, _ = registry.add(fresh)
    registry.promote(name)
    assert registry.rollback() == current
    if current != a:
        assert registry.rollback() in {a, b}
    assert {path.name[0] for path in (registry.path / "checkpoints").iterdir()} == {"t"}


def test_a_rollback_cut_short_did_not_happen(
    registry: Registry, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c, _ = names
    for name in (a, b, c):
        registry.promote(name)

    def cut(self: Registry, name: str) -> None:
        raise PowerCutError

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "_point_to", cut)
        with pytest.raises(PowerCutError):
            registry.rollback()
    assert registry.current() == c
    assert registry.rollback() == b
    assert registry.rollback() == a


def test_promoters_at_once_are_one_after_the_other(registry: Registry, names: list[str]) -> None:
    inside = 0
    most = 0

    def slow(checkpoint: Checkpoint) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        threading.Event().wait(0.005)
        inside -= 1

    def work(name: str) -> None:
        own = Registry(registry.path, prove=slow)
        for _ in range(5):
            own.promote(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    changes = registry.history()
    assert changes[-1].name == registry.current()
    assert all(change.action == "promote" for change in changes)
    for before, after in itertools.pairwise(changes):
        assert after.previous == before.name


def test_readers_need_no_right_to_write(registry: Registry, names: list[str]) -> None:
    registry.promote(names[0])
    for path in (registry.path, registry.path / "checkpoints"):
        path.chmod(0o555)
    try:
        assert registry.open_current().name == names[0]
        assert len(registry.entries()) == 4
    finally:
        for path in (registry.path, registry.path / "checkpoints"):
            path.chmod(0o755)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("promote"), st.integers(0, 3)),
        st.tuples(st.just("hand"), st.integers(0, 3)),
        st.just(("rollback", 0)),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, sources: list[Path]
) -> Iterator[tuple[Registry, list[str]]]:
    registry = Registry(tmp_path_factory.mktemp("shared") / "models")
    return registry, [registry.add(source)[0] for source in sources]


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_rollbacks_go_back_along_what_was_current(
    shared: tuple[Registry, list[str]], steps: list[tuple[str, int]]
) -> None:
    registry, names = shared
    for file in ("current", "history.jsonl"):
        (registry.path / file).unlink(missing_ok=True)
    line: list[str] = []
    for step, number in steps:
        name = names[number]
        if step == "rollback":
            if len(line) < 2:
                with pytest.raises(NothingBeforeError):
                    registry.rollback()
            else:
                line.pop()
                assert registry.rollback() == line[-1]
            continue
        if step == "promote":
            registry.promote(name)
        else:
            (registry.path / "current").write_text(name)
            assert not registry.promote(name)  # it is current, which is recorded now
        if not line or line[-1] != name:
            line.append(name)
        assert registry.current() == name
    assert registry.current() == (line[-1] if line else None)
    assert past(registry.history()) == line


def test_a_history_of_any_kind_can_be_read() -> None:
    changes = [Change(1.0, "rollback", "a"), Change(2.0, "promote", "b"), Change(3.0, "found", "b")]
    assert past(changes) == ["a", "b"]
    assert past([]) == []
    assert json.loads(msgspec.json.encode(changes[0])) == {
        "at": 1.0,
        "action": "rollback",
        "name": "a",
    }
