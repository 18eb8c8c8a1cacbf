"""How a client of Kafka connects: address, TLS and login, for every client there is."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError, KafkaError

from onebar.errors import UsageError
from onebar.settings import Settings

EXPLAIN_WITHIN_S = 3.0


class KafkaSecurityError(UsageError, ValueError):
    """A file, or the token provider, that the settings name is not there or not fit."""


def client_options(settings: Settings) -> dict[str, Any]:
    """The keyword arguments with which any client of aiokafka connects.

    Raises `KafkaSecurityError`.
    """
    return {"bootstrap_servers": settings.kafka_bootstrap, **security_options(settings)}


def security_options(settings: Settings) -> dict[str, Any]:
    """Those of `client_options` that are about TLS and the login; none for plain text.

    Raises `KafkaSecurityError`.
    """
    protocol = settings.kafka_security_protocol
    if protocol == "PLAINTEXT":
        return {}
    options: dict[str, Any] = {"security_protocol": protocol}
    if protocol in ("SSL", "SASL_SSL"):
        options["ssl_context"] = _context(settings)
    if protocol.startswith("SASL_"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        if settings.kafka_sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = _Tokens(settings.kafka_token_provider)
        else:
            options["sasl_plain_username"] = settings.kafka_sasl_username
            options["sasl_plain_password"] = settings.kafka_sasl_password
    return options


async def cause_of(settings: Settings, error: BaseException) -> BaseException:
    """Why a client could not connect, where it knows no better than that it could not: its own
    words about TLS and the login stand in its log alone."""
    if not isinstance(error, KafkaConnectionError):
        return error
    host, _, port = settings.kafka_bootstrap.split(",")[0].strip().rpartition(":")
    options = security_options(settings)
    try:
        async with asyncio.timeout(EXPLAIN_WITHIN_S):
            connection = await create_conn(host.strip("[]"), int(port), **options)
    except TimeoutError:
        return cast(BaseException, error)
    except OSError as cause:
        return cause
    except KafkaError as cause:
        return cast(BaseException, cause)
    connection.close()
    return cast(BaseException, error)


def _context(settings: Settings) -> ssl.SSLContext:
    authorities = settings.kafka_tls_ca
    try:
        context = ssl.create_default_context(cafile=authorities)
    except OSError as error:  # an SSLError among them
        raise KafkaSecurityError(f"ONEBAR_KAFKA_TLS_CA={authorities}: {_said(error)}") from error
    context.check_hostname = settings.kafka_tls_check_hostname
    if settings.kafka_tls_certificate is not None:
        try:
            context.load_cert_chain(
                settings.kafka_tls_certificate,
                settings.kafka_tls_key,
                # Without one OpenSSL would ask the terminal.
                lambda: settings.kafka_tls_key_password,
            )
        except OSError as error:
            raise KafkaSecurityError(
                f"ONEBAR_KAFKA_TLS_CERTIFICATE={settings.kafka_tls_certificate}, "
                f"ONEBAR_KAFKA_TLS_KEY={settings.kafka_tls_key or ''}: {_said(error)}"
            ) from error
    return context


def _said(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens from the function that the settings name."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where
        module, _, name = where.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise KafkaSecurityError(f"ONEBAR_KAFKA_TOKEN_PROVIDER={where}: {error}") from error
        if not callable(found):
            raise KafkaSecurityError(f"ONEBAR_KAFKA_TOKEN_PROVIDER={where} is no function")
        self._make: Callable[[], str | Awaitable[str]] = found

    async def token(self) -> str:
        """The next one."""
        made = await asyncio.to_thread(self._make)
        token = await made if inspect.isawaitable(made) else made
        if not isinstance(token, str) or not token:
            raise KafkaSecurityError(
                f"ONEBAR_KAFKA_TOKEN_PROVIDER={self._where} gave {type(token).__name__}, not a "
                "token"
            )
        return token
