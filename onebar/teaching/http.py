"""A teacher behind an OpenAI-compatible endpoint: Ollama, vLLM, llama.cpp, or a hosted one."""

from __future__ import annotations

import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from email.message import Message as Headers
from typing import Any

import msgspec
from msgspec import Struct

from onebar.teaching.teacher import (
    Message,
    Reply,
    TeacherAwayError,
    TeacherRefusesError,
    TeacherUnusableError,
)

MAX_REPLY_BYTES = 1_000_000
"""Of an answer; what is longer is no list of queries."""
LONGEST_RETRY_AFTER_S = 600.0
_UNUSABLE = {401: "a key", 403: "a key with the right to ask", 404: "this address and model"}
_LATER = {408, 409, 425, 429}


class _Said(Struct):
    content: str | None = None


class _Choice(Struct):
    message: _Said


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class HTTPTeacher:
    """Asks `POST …/v1/chat/completions`, at temperature 0 unless told otherwise."""

    def __init__(
        self,
        address: str,
        model: str | None = None,
        *,
        key: str | None = None,
        max_tokens: int = 200,
        temperature: float = 0.0,
        timeout_s: float = 120.0,
        name: str | None = None,
    ) -> None:
        """Without a model, the endpoint's only one. Raises `TeacherUnusableError`."""
        self._base = base_address(address)
        self._headers = {"Content-Type": "application/json", "User-Agent": "onebar"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeout_s = timeout_s
        self._settings = {"max_tokens": max_tokens, "temperature": temperature, "stream": False}
        self._model = model or self._only_model()
        self.name = name or self._model

    def ask(self, messages: Sequence[Message]) -> Reply:
        body = {
            "model": self._model,
            "messages": msgspec.to_builtins(messages),
            **self._settings,
        }
        data = self._call("/chat/completions", json.dumps(body, ensure_ascii=False).encode())
        try:
            found = msgspec.json.decode(data, type=_Completion)
            text = found.choices[0].message.content
        except (msgspec.DecodeError, UnicodeDecodeError, IndexError):
            # A proxy's page in place of an answer, or one that was cut short.
            raise TeacherAwayError(
                f"{self._base} answered with no chat completion: {data[:120]!r}"
            ) from None
        usage = found.usage or _Usage()
        return Reply(text or "", usage.prompt_tokens, usage.completion_tokens)

    def _only_model(self) -> str:
        try:
            listed: Any = json.loads(self._call("/models", None))
            names = sorted(str(each["id"]) for each in listed["data"])
        except (TeacherAwayError, TeacherRefusesError) as error:
            raise TeacherUnusableError(f"{error}; is it up? Or name the model: --model") from None
        except (ValueError, LookupError, TypeError):
            names = []
        if len(names) != 1:
            found = ", ".join(names[:8]) or "no list of them"
            raise TeacherUnusableError(f"expected --model NAME; {self._base} has {found}")
        return names[0]

    def _call(self, path: str, body: bytes | None) -> bytes:
        request = urllib.request.Request(self._base + path, body, self._headers)
        try:
            # The address is http or https: it was looked at when this was made.
            with urllib.request.urlopen(  # nosec B310
                request, timeout=self._timeout_s
            ) as response:
                return bytes(response.read(MAX_REPLY_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise TeacherAwayError(f"{self._base} can't be reached: {reason}") from None

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        said = error.read(400).decode(errors="replace").strip()
        told = f"{self._base} answered {error.code}: {said or error.reason}"
        if error.code in _UNUSABLE:
            return TeacherUnusableError(f"{told}; expected {_UNUSABLE[error.code]}")
        if error.code >= 500 or error.code in _LATER:
            return TeacherAwayError(told, _retry_after_s(error.headers))
        return TeacherRefusesError(told)


def base_address(address: str) -> str:
    """The address that `/chat/completions` stands behind, whatever of it was given.

    Raises `TeacherUnusableError`.
    """
    found = re.fullmatch(r"(https?://[^/?#\s]+)((?:/[^?#\s]*)?)", address.strip())
    if found is None:
        raise TeacherUnusableError(
            f"expected an address such as http://127.0.0.1:11434, got {address!r}"
        )
    path = found[2].rstrip("/").removesuffix("/chat/completions")
    return found[1] + (path or "/v1")


def _retry_after_s(headers: Headers) -> float:
    try:
        return min(max(0.0, float(headers.get("Retry-After", ""))), LONGEST_RETRY_AFTER_S)
    except ValueError:
        return 0.0
