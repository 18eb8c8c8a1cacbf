"""The only module that knows the Redis client: connecting, pipelines, scripts and their errors."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Protocol, cast

import redis.exceptions as errors
from msgspec import Struct
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import ExponentialBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from feature_store.redis.connection import Argument, Connection, Watcher, Words
from feature_store.redis.login import NO_LOGIN, Login, sentinel_pool, tls_options
from onebar.addresses import check_redis_url
from onebar.errors import OneBarError


class ConnectedRedis(Redis):
    """A client whose calls through this module share one connection. The pool is for the
    rest."""

    shared: Connection

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close every connection."""
        await self.shared.close()
        await super().aclose(close_connection_pool)


Client = ConnectedRedis | RedisCluster

SLOTS_A_TAG = 512
MAX_CONNECTIONS = 64
"""Connections a client opens at most; further requests wait for a free one."""

_AWAY = (errors.RedisError, errors.RedisClusterException, OSError, TimeoutError)
_VALUES_FAULT = ("WRONGTYPE", "CORRUPT")
"""How a reply begins that blames what is kept under the command's key, and so one record alone."""


class StoreUnavailableError(OneBarError):
    """Redis cannot be reached, or is unfit: try again later.

    Repeating the same call is always safe.
    """


class StoreUnfitError(StoreUnavailableError):
    """Redis answers and refuses, and not for the sake of a value: it is a replica, full, too old,
    can't save, or its user may not do what is needed. Someone has to mend it; until then no
    command of its kind will do, so no record is to blame.
    """


class StoreCommandError(OneBarError):
    """What is kept under a command's key is not what was put there; trying again will not mend it.

    `keys` are the keys of the failed commands; every other command of the call took effect.
    """

    def __init__(self, message: str, keys: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.keys = tuple(keys)


class Script(Struct, frozen=True):
    """A Lua script, called by its digest."""

    name: str
    source: str
    sha: str


class Command(Struct, frozen=True):
    """One command of a pipeline: a plain one by its name, or a script with its keys.

    `keys` all live in one slot.
    """

    name: str | Script
    keys: tuple[str, ...]
    args: tuple[Argument, ...] = ()


class _Pipeline(Protocol):
    def execute_command(self, *args: Any) -> Any: ...

    def execute(self, raise_on_error: bool = ...) -> Awaitable[list[Any]]: ...


def load_script(name: str, *preludes: str) -> Script:
    """The script `lua/{name}.lua` behind the preludes named."""
    folder = files("feature_store.redis") / "lua"
    source = "".join((folder / f"{part}.lua").read_text("utf-8") for part in (*preludes, name))
    digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
    return Script(name=name, source=source, sha=digest)


def connect(
    url: str, *, timeout_s: float, login: Login = NO_LOGIN, watcher: Watcher | None = None
) -> Client:
    """A client for `redis://`, `rediss://`, `unix://`, `redis+cluster://host:port`, or
    `redis+sentinel://host:port,host:port/primary/0` (`rediss+` with TLS).

    Opens nothing until its first command. A command takes `timeout_s` at most, twice that where
    a broken connection made it start again. A `watcher` is told of changes to whatever is read
    through this client, but for a cluster's. Raises `ValueError` for what is no such URL, and
    `RedisSecurityError`.
    """
    check_redis_url(url)
    scheme, _, rest = url.partition("://")
    plain, _, kind = scheme.partition("+")
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(ExponentialBackoff(cap=0.1, base=0.02), 1, (errors.ConnectionError,)),
        "max_connections": MAX_CONNECTIONS,
        # What the URL says goes before these.
        "username": login.username or None,
        "password": login.password or None,
    }
    if plain == "rediss":
        options |= tls_options(login)
    if kind == "cluster":
        cluster: RedisCluster = RedisCluster.from_url(f"{plain}://{rest}", **options)
        return cluster
    if kind == "sentinel":
        pool: ConnectionPool = sentinel_pool(url, login, options)
    else:
        pool = BlockingConnectionPool.from_url(url, timeout=timeout_s, **options)
    client = cast(ConnectedRedis, ConnectedRedis.from_pool(pool))
    client.shared = Connection(pool, timeout_s=timeout_s, watcher=watcher)
    return client


async def pipelined(client: Client, commands: Sequence[Command]) -> list[Any]:
    """The replies to the commands, in one round trip (one per node of a cluster).

    A script that the server does not know yet is sent again in full: once more a round trip,
    for those commands alone. That is safe where no two commands of a call share an entity: none
    can overtake another. Raises `StoreUnavailableError` or `StoreCommandError`.
    """
    if not commands:
        return []
    replies = await _send(client, commands, full=False)
    unknown = [i for i, reply in enumerate(replies) if isinstance(reply, errors.NoScriptError)]
    if unknown:
        again = await _send(client, [commands[i] for i in unknown], full=True)
        for i, reply in zip(unknown, again, strict=True):
            replies[i] = reply
    _raise_failures(commands, replies)
    return replies


async def strings(client: Client, names: Sequence[str]) -> list[bytes | None]:
    """The values of these keys, in one round trip (one per node of a cluster); None where there is
    none, or something else than a string.

    One command of many keys takes the client a tenth of the work that as many commands do. Raises
    `StoreUnavailableError` or `StoreCommandError`.
    """
    if not names:
        return []
    if isinstance(client, RedisCluster):
        found = await pipelined(client, [Command("MGET", (name,)) for name in names])
        return [value for [value] in found]
    [values] = await pipelined(client, [Command("MGET", tuple(names))])
    return cast(list[bytes | None], values)


async def _send(client: Client, commands: Sequence[Command], *, full: bool) -> list[Any]:
    words = [_words(command, full=full) for command in commands]
    try:
        if isinstance(client, RedisCluster):
            return await _send_to_cluster(client, words)
        return await client.shared.call(words)
    except _AWAY as error:
        raise _unavailable(error) from error


async def _send_to_cluster(client: RedisCluster, commands: Sequence[Words]) -> list[Any]:
    pipeline: Any = client.pipeline()
    for words in commands:
        cast(_Pipeline, pipeline).execute_command(*words)
    try:
        return await cast(_Pipeline, pipeline).execute(raise_on_error=False)
    finally:
        await pipeline.reset()


def _words(command: Command, *, full: bool) -> Words:
    if not isinstance(command.name, Script):
        return (command.name, *command.keys, *command.args)
    script = command.name
    call = ("EVAL", script.source) if full else ("EVALSHA", script.sha)
    return (*call, len(command.keys), *command.keys, *command.args)


def _raise_failures(commands: Sequence[Command], replies: Sequence[Any]) -> None:
    failed = [
        (command, reply)
        for command, reply in zip(commands, replies, strict=True)
        if isinstance(reply, Exception)
    ]
    if not failed:
        return
    for command, reply in failed:
        if not isinstance(reply, errors.ResponseError):  # a node of a cluster did not answer
            raise _unavailable(reply) from reply
        if not str(reply).startswith(_VALUES_FAULT):
            raise _unfit(_name(command), reply) from reply
    command, reply = failed[0]
    others = f" (and {len(failed) - 1:,} more)" if len(failed) > 1 else ""
    where = f" on {command.keys[0]!r}" if command.keys else ""
    raise StoreCommandError(
        f"Redis refused {_name(command)}{where}{others}: {reply}",
        [key for failure, _ in failed for key in failure.keys[:1]],
    ) from reply


def _name(command: Command) -> str:
    return command.name.name if isinstance(command.name, Script) else command.name


def _unavailable(error: BaseException) -> StoreUnavailableError:
    if isinstance(error, errors.ResponseError):
        return _unfit("the connection", error)
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, MasterNotFoundError):
        return StoreUnavailableError(
            f"the Sentinels name no primary of Redis ({said}): are they running, and is the name "
            "behind them in ONEBAR_REDIS_URL right?"
        )
    if isinstance(error, errors.AuthenticationError):
        return StoreUnfitError(
            f"Redis refuses the login ({said}): are ONEBAR_REDIS_USERNAME and "
            "ONEBAR_REDIS_PASSWORD right, or those in ONEBAR_REDIS_URL?"
        )
    if "certificate" in said.lower() or "SSL" in said:
        return StoreUnfitError(
            f"Redis and this process do not agree on TLS ({said}): is it rediss:// in "
            "ONEBAR_REDIS_URL, and ONEBAR_REDIS_TLS_CA who signed its certificate?"
        )
    hung_up = ": it hangs up; does it want TLS (rediss://), or a client's certificate?"
    away = "; is it running, and is ONEBAR_REDIS_URL right?"
    closed = "reset by peer" in said or "closed by server" in said
    return StoreUnavailableError(f"Redis cannot be reached ({said}){hung_up if closed else away}")


_HINTS = (
    (("HELLO",), "a proxy without HELLO needs ?protocol=2 at the end of ONEBAR_REDIS_URL"),
    (("unknown command", "acl_check_cmd"), "Redis 7.0 or later is needed"),
    (
        ("NOPERM", "can't run this command", "no permission", "can't access"),
        "give its user the commands that docs/operations.md lists",
    ),
    (("READONLY", "read only replica"), "ONEBAR_REDIS_URL must lead to the primary"),
    (("maxmemory",), "give it more memory"),
    (("MISCONF",), "it can't save to its disk"),
)


def _unfit(what: str, reply: BaseException) -> StoreUnfitError:
    text = str(reply)
    hints = (hint for words, hint in _HINTS if any(word in text for word in words))
    hint = next(hints, "mend it; what was sent is kept and tried again")
    return StoreUnfitError(f"Redis is unfit, it refused {what} ({text}): {hint}")


def is_cluster(client: Client) -> bool:
    """Whether the keys are spread over several servers."""
    return isinstance(client, RedisCluster)


@cache
def tags(client_is_cluster: bool) -> tuple[str, ...]:
    """Hash tags of which every server has one: one of each 512 slots of a Redis Cluster, whose
    servers have whole ranges; where there is one server, one tag, which is empty."""
    if not client_is_cluster:
        return ("",)
    found: dict[int, str] = {}
    for number in itertools.count():
        found.setdefault(key_slot(str(number).encode()) // SLOTS_A_TAG, str(number))
        if len(found) == REDIS_CLUSTER_HASH_SLOTS // SLOTS_A_TAG:
            return tuple(found[at] for at in sorted(found))
    raise AssertionError("unreachable")


def tells_changes(client: Client) -> bool:
    """Whether `connect` can have somebody watch through such a client."""
    return isinstance(client, ConnectedRedis)


async def infos(client: Client) -> list[dict[str, str]]:
    """INFO of the server, or of each primary of a cluster; none where it is refused. Raises
    `StoreUnavailableError`."""
    if not isinstance(client, RedisCluster):
        try:
            [text] = await pipelined(client, [Command("INFO", ())])
        except StoreUnfitError:
            return []
        lines = (line.partition(":") for line in text.decode(errors="replace").splitlines())
        return [{name: value for name, mark, value in lines if mark}]
    try:
        found = await cast(Any, client).info(target_nodes=RedisCluster.PRIMARIES)
    except errors.ResponseError:
        return []
    except _AWAY as error:
        raise _unavailable(error) from error
    nodes = list(found.values())
    several = bool(nodes) and all(isinstance(node, dict) for node in nodes)
    return [
        {str(name): str(value) for name, value in node.items()}
        for node in (nodes if several else [found])
    ]


async def scan(
    client: Client, prefix: str, suffix: str = "", *, part: str = ""
) -> AsyncIterator[str]:
    """Every key that begins with `prefix`, ends with `suffix` and has `part` in between, each once.
    Raises `StoreUnavailableError`."""
    begin, middle, end = (
        "".join(f"\\{c}" if c in "*?[]^\\" else c for c in text) for text in (prefix, part, suffix)
    )
    pattern = f"{begin}*{middle}*{end}" if middle else f"{begin}*{end}"
    seen: set[bytes] = set()
    try:
        async for key in client.scan_iter(match=pattern, count=1000):
            if key not in seen:
                seen.add(key)
                yield key.decode()
    except _AWAY as error:
        raise _unavailable(error) from error


async def close(client: Client) -> None:
    """Close every connection."""
    await client.aclose()
