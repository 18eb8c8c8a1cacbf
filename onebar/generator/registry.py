"""The registry: a directory of immutable checkpoints, and a pointer to the one that serves.

checkpoints/NAME/    checkpoints under their own names, which hash their content
current              the name of the one that serves: a small file, replaced in one rename
history.jsonl        which name `current` came to hold, when, by whom, instead of which
.lock                held by whoever changes any of it; readers take no lock

Crash-safe: a checkpoint comes in by one rename, the pointer changes by one rename, and the history
is brought up to the pointer by the next change (also after someone has written `current` by hand).
Several machines may share the directory where `flock` works on it; those that only serve need no
more than to read it.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from onebar.errors import OneBarError
from onebar.generator.checkpoint import (
    CARD,
    Card,
    Checkpoint,
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointNotFoundError,
    open_checkpoint,
)
from onebar.process.files import replace_file, sync

CHECKPOINTS = "checkpoints"
CURRENT = "current"
HISTORY = "history.jsonl"
LOCK = ".lock"
MAX_POINTER_BYTES = 512

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class RegistryError(OneBarError, RuntimeError):
    """The registry can't do what was asked."""


class RegistryNotFoundError(RegistryError):
    """There is no registry where one was expected."""


class NothingPromotedError(RegistryError):
    """The registry has no current checkpoint."""


class NothingBeforeError(RegistryError):
    """There is nothing to roll back to."""


class CurrentCheckpointError(RegistryError):
    """The current checkpoint can't be removed."""


Action = Literal["promote", "rollback", "found"]


class Change(Struct, frozen=True, omit_defaults=True):
    """A line of the history: from `at` (UTC epoch seconds) on `name` was current.

    `found`: nobody recorded the change, it was seen later (by hand, or cut short by a crash).
    """

    at: float
    action: Action
    name: str
    previous: str | None = None
    by: str = ""


class Pointer(Struct, frozen=True):
    """What `current` holds. Written anew it has another `stamp`, even with the same name."""

    name: str
    stamp: tuple[int, int]


class RegisteredCheckpoint(Struct, frozen=True):
    """A checkpoint of the registry, or what is wrong with it. `promoted_at`: the last time."""

    name: str
    current: bool
    bytes: int = 0
    card: Card | None = None
    problem: str | None = None
    promoted_at: float | None = None


class Registry:
    """The registry at `path`. Every method does its own I/O; call them in a thread from a loop.

    `prove` looks at a sound checkpoint before it is promoted and raises `CheckpointError` where it
    would not serve (`onebar.recommending.loading.prove`). `clock` gives UTC epoch seconds.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        prove: Callable[[Checkpoint], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self._prove = prove
        self._clock = clock

    # What is there

    def pointer(self) -> Pointer | None:
        """What `current` holds; None where nothing was promoted yet.

        Raises `RegistryNotFoundError`, and `RegistryError` where `current` holds no name.
        """
        try:
            with (self.path / CURRENT).open("rb") as file:
                facts = os.fstat(file.fileno())
                raw = file.read(MAX_POINTER_BYTES)
        except FileNotFoundError:
            self._need()
            return None
        except OSError as error:
            raise RegistryError(f"{self.path / CURRENT} can't be read: {error.strerror}") from error
        name = raw.decode("utf-8", "replace").strip()
        if not _NAME.fullmatch(name):
            raise RegistryError(
                f"{self.path / CURRENT} holds {name[:80]!r}, which is no checkpoint's name: "
                "promote one with `onebar models promote NAME`"
            )
        return Pointer(name, (facts.st_ino, facts.st_mtime_ns))

    def current(self) -> str | None:
        """The name of the checkpoint that serves; see `pointer`."""
        pointer = self.pointer()
        return None if pointer is None else pointer.name

    def checkpoint_path(self, name: str) -> Path:
        """Where the checkpoint of this name lies, if it is there."""
        if not _NAME.fullmatch(name):
            raise RegistryError(f"{name[:80]!r} is no checkpoint's name; see `onebar models list`")
        return self.path / CHECKPOINTS / name

    def open(self, name: str) -> Checkpoint:
        """A checkpoint of the registry, verified. Raises `CheckpointError`."""
        path = self.checkpoint_path(name)
        if not path.is_dir():
            raise CheckpointNotFoundError(
                f"there is no checkpoint {name} in {self.path}; `onebar models list` shows those "
                "that are, `onebar models add` brings one in"
            )
        return named(open_checkpoint(path), name)

    def open_current(self) -> Checkpoint:
        """The checkpoint that serves, verified.

        Raises `NothingPromotedError`, `CheckpointError`, and what `pointer` raises.
        """
        name = self.current()
        if name is None:
            raise NothingPromotedError(
                f"nothing is promoted in {self.path} yet: `onebar models add CHECKPOINT`, then "
                "`onebar models promote NAME`"
            )
        return self.open(name)

    def entries(self, *, verify: bool = False) -> list[RegisteredCheckpoint]:
        """All checkpoints, the newest first; with `verify` every file is hashed.

        The current one is among them even if it is gone.
        """
        self._need()
        try:
            current = self.current()
        except RegistryError:
            current = None
        promoted = {change.name: change.at for change in self.history()}
        entries = []
        for name in {*self._names(), *([current] if current else [])}:
            try:
                card = named(open_checkpoint(self.checkpoint_path(name), verify=verify), name).card
                size = sum(fact.size for fact in card.files.values())
                problem = None
            except CheckpointError as error:
                card, size, problem = None, 0, str(error)
            at = promoted.get(name)
            entries.append(RegisteredCheckpoint(name, name == current, size, card, problem, at))
        entries.sort(key=lambda entry: entry.name)
        entries.sort(key=lambda entry: entry.card.created_at if entry.card else "", reverse=True)
        return entries

    def history(self) -> list[Change]:
        """What was current, in the order of its becoming so. Lines cut short are left out."""
        try:
            raw = (self.path / HISTORY).read_bytes()
        except FileNotFoundError:
            return []
        changes = []
        for line in raw.splitlines():
            try:
                changes.append(msgspec.json.decode(line, type=Change))
            except msgspec.DecodeError:
                continue
        return changes

    # What changes it

    def add(self, path: Path | str) -> tuple[str, bool]:
        """Copy a checkpoint in; its name, and whether it was not there yet.

        The source is verified, and so is the copy. One of the same name that is damaged is
        replaced. Raises `CheckpointError`.
        """
        source = open_checkpoint(path)
        if not _NAME.fullmatch(source.name):
            raise CheckpointMismatchError(
                f"{source.path} is called {source.name!r}, which can't name a directory: train it "
                "with a preset of letters, digits, '.', '_' and '-'"
            )
        (self.path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        with self._locked():
            self._clear_leftovers()
            target = self.checkpoint_path(source.name)
            if _same(target, source):
                return source.name, False
            with self._aside("adding") as staged:
                _copy(source, staged / "new")
                named(open_checkpoint(staged / "new"), source.name)
                if target.exists():
                    target.rename(staged / "damaged")
                (staged / "new").rename(target)
                sync(target.parent)
        return source.name, True

    def promote(self, name: str) -> bool:
        """Make a checkpoint the one that serves; whether it was not already.

        It is verified first and tried (`prove`); where that fails nothing is changed. One that is
        current already is written down once more, so that those who refused it try again. Raises
        `CheckpointError` and `RegistryError`.
        """
        self._need()
        with self._locked():
            previous = self._settle()
            self._check(name)
            # The pointer first: a crash in between is a promotion that is found later.
            self._point_to(name)
            if name != previous:
                self._note("promote", name, previous)
        return name != previous

    def rollback(self) -> str:
        """Go back to the checkpoint before the current one; its name.

        Twice goes back by two: what was rolled back from is no longer in the line, and what was
        removed is passed over. Raises `NothingBeforeError`, and what `promote` raises.
        """
        self._need()
        with self._locked():
            current = self._settle()
            there = set(self._names())
            line = [name for name in past(self.history()) if name in there and name != current]
            if not line:
                raise NothingBeforeError(
                    f"there is nothing before {current or 'the first checkpoint'} in {self.path}; "
                    "promote one by its name"
                )
            self._check(line[-1])
            # The history first: after a crash in between, what is still current is found again
            # and stands where it stood.
            self._note("rollback", line[-1], current)
            self._point_to(line[-1])
            return line[-1]

    def remove(self, name: str) -> None:
        """Delete a checkpoint that is not current. Raises `CurrentCheckpointError`,
        `CheckpointNotFoundError`, and `RegistryError` where `current` can't be read.
        """
        self._need()
        with self._locked():
            self._clear_leftovers()
            if name == self.current():  # raises where nobody can tell
                raise CurrentCheckpointError(
                    f"{name} is the current checkpoint: promote another one first"
                )
            path = self.checkpoint_path(name)
            if not path.is_dir():
                raise CheckpointNotFoundError(f"there is no checkpoint {name} in {self.path}")
            with self._aside("removing") as staged:
                path.rename(staged / "old")
                sync(path.parent)

    # How

    def _need(self) -> None:
        if not (self.path / CHECKPOINTS).is_dir():
            raise RegistryNotFoundError(
                f"there is no registry at {self.path}; `onebar models add CHECKPOINT` makes one, "
                "ONEBAR_REGISTRY names it"
            )

    def _names(self) -> list[str]:
        found = (self.path / CHECKPOINTS).iterdir()
        return [each.name for each in found if _NAME.fullmatch(each.name) and each.is_dir()]

    def _check(self, name: str) -> None:
        checkpoint = self.open(name)
        if self._prove is not None:
            self._prove(checkpoint)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _aside(self, why: str) -> Iterator[Path]:
        """A directory beside the checkpoints that is no checkpoint, gone afterwards."""
        path = Path(tempfile.mkdtemp(prefix=f".{why}-", dir=self.path / CHECKPOINTS))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _clear_leftovers(self) -> None:
        """What a crash left behind; under the lock nobody else is at work on it."""
        for why in ("adding", "removing"):
            for path in (self.path / CHECKPOINTS).glob(f".{why}-*"):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.path.glob(f".{CURRENT}.*.tmp"):
            path.unlink(missing_ok=True)

    def _point_to(self, name: str) -> None:
        replace_file(self.path / CURRENT, name.encode() + b"\n")

    def _settle(self) -> str | None:
        """Bring the history up to the pointer, which is what counts; the current name."""
        try:
            current = self.current()
        except RegistryError:
            if (self.path / CURRENT).is_file():  # it names nothing: as good as none
                return None
            raise
        changes = self.history()
        known = changes[-1].name if changes else None
        if current is not None and current != known:
            self._note("found", current, known)
        return current

    def _note(self, action: Action, name: str, previous: str | None) -> None:
        line = msgspec.json.encode(Change(self._clock(), action, name, previous, _who()))
        with (self.path / HISTORY).open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line that a crash has cut short
                    line = b"\n" + line
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        sync(self.path)


def past(changes: Sequence[Change]) -> list[str]:
    """The line of names that rollbacks go back along, the current one last; pure."""
    line: list[str] = []
    for change in changes:
        if change.action == "rollback":
            while line and line[-1] != change.name:
                line.pop()
            if line:
                continue
        if not line or line[-1] != change.name:
            line.append(change.name)
    return line


def named(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """The checkpoint, if it is called `name`. Raises `CheckpointMismatchError`."""
    if checkpoint.name != name:
        raise CheckpointMismatchError(
            f"{checkpoint.path} holds the checkpoint {checkpoint.name}, not {name}: remove it and "
            "add the right one with `onebar models add`"
        )
    return checkpoint


def _same(path: Path, source: Checkpoint) -> bool:
    """Whether a sound copy of `source` is at `path`. Raises `CheckpointMismatchError` for another
    sound checkpoint with the same name."""
    try:
        there = open_checkpoint(path)
    except CheckpointNotFoundError:
        return False
    except CheckpointError:
        return False
    if there.name == source.name and there.card.files != source.card.files:
        raise CheckpointMismatchError(
            f"{path} holds other files than {source.path} under the same name: train it again with "
            "another seed, or remove the one that is there"
        )
    return there.name == source.name


def _copy(source: Checkpoint, target: Path) -> None:
    """The files of the card, and the card; all of it on the disk when this returns."""
    for name in (*source.card.files, CARD):
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(source.path / name, copy)
        except FileNotFoundError as error:
            raise CheckpointCorruptError(f"{error.filename} went away while copied") from None
        sync(copy)
    for directory in {copy.parent for copy in target.rglob("*")}:
        sync(directory)


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
