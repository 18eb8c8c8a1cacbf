"""A teacher in this process: a GGUF file run by llama.cpp (the extra `teach`)."""

from __future__ import annotations

import hashlib
from pathlib import Path

from onebar.teaching.http import HTTPTeacher
from onebar.teaching.teacher import TeacherUnusableError

MAGIC = b"GGUF"
CONTEXT = 2048
"""Tokens of one conversation."""


class GGUFTeacher(HTTPTeacher):
    """llama.cpp's own server on a free port of the loopback, asked as any other endpoint.

    Conversations that begin alike share what was read of that beginning.
    """

    def __init__(
        self, path: Path, *, threads: int, workers: int, max_tokens: int = 200, timeout_s: float
    ) -> None:
        """Loads the file. Raises `TeacherUnusableError`, `ModuleNotFoundError`."""
        name = gguf_name(path)
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel = workers
        params.n_ctx = CONTEXT * workers
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.verbosity = 1
        params.ui = False
        try:
            self._server = xllamacpp.Server(params)  # as long as this lives, it listens
        except RuntimeError as error:
            raise TeacherUnusableError(f"{path} can't be loaded: {error}") from None
        super().__init__(
            self._server.listening_address,
            path.stem,
            max_tokens=max_tokens,
            timeout_s=timeout_s,
            name=name,
        )


def gguf_name(path: Path) -> str:
    """The file's name with the beginning of its SHA-256: which weights they are, wherever the file
    lies. Raises `TeacherUnusableError`."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise TeacherUnusableError(f"{path} is no GGUF file")
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TeacherUnusableError(f"{path} can't be read: {error.strerror}") from None
    return f"{path.stem}@{digest[:12]}"
