"""Is this Redis fit to hold the state: new enough, permitted what is needed, evicting nothing?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from feature_store.redis.client import Client, Command, infos, load_script, pipelined

OLDEST = (7, 0)
"""The first Redis whose scripts can ask what they may do before they do it. Every Valkey can."""

NEEDED = (
    *("GET", "GETRANGE", "MGET", "SET", "INCR", "DEL", "UNLINK", "PEXPIRE"),
    *("HGET", "HMGET", "HGETALL", "HLEN", "HKEYS", "HSET", "HDEL"),
    *("SADD", "SCARD", "SISMEMBER"),
    *("ZADD", "ZCARD", "ZRANGE", "ZRANGEBYSCORE", "ZREVRANGE"),
    *("ZREM", "ZREMRANGEBYRANK", "ZREMRANGEBYSCORE", "TIME", "PING"),
)
"""Without one of these nothing can be kept. Nor without EVAL and EVALSHA, which are simply run:
asked about them without their arguments, a Valkey ends."""
WANTED = ("HELLO", "CLIENT TRACKING", "INFO", "SCAN")
"""Without these something is missing: the near cache, this examination, `replay --check`."""

_CONNECTING = ("AUTH", "HELLO", "SELECT")
_CLUSTER = ("CLUSTER", "COMMAND", "READONLY")

_SAVES = ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")


def acl_rule(
    user: str, namespace: str, password: str = ">PASSWORD", *, cluster: bool = False
) -> str:
    """The line of an ACL file for a user who may do all that is needed and wanted with the keys of
    this namespace, and nothing else; without its first word, what `ACL SETUSER` takes.

    `password` is as Redis has it: `>` before one, `#` before its SHA-256.
    """
    wanted = (name.replace(" ", "|") for name in WANTED)
    names = [*_CONNECTING, *wanted, "EVAL", "EVALSHA", *NEEDED, *(_CLUSTER if cluster else ())]
    allowed = " ".join(f"+{name.lower()}" for name in dict.fromkeys(names))
    pattern = "".join(f"\\{c}" if c in "*?[]\\" else c for c in namespace)
    return f"user {user} on {password} ~{pattern}:* -@all {allowed}"


FITNESS = load_script("fitness")


class Fitness(Struct, frozen=True):
    """What an examination came to. With `problems` nothing can be kept; `warnings` are about what
    may go wrong one day, `notes` about what to know. Where INFO is refused `version` is empty and
    `evicted` None."""

    version: str
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    evicted: int | None = None


async def examine(client: Client, key: str) -> Fitness:
    """Examine the server, by a key of ours where one is needed. Raises `StoreUnavailableError`
    where it does not answer, or refuses to be examined."""
    told = await infos(client)
    version = told[0].get("redis_version", "") if told else ""
    problems = [
        f"Redis {number} is too old: {'.'.join(map(str, OLDEST))} or later is needed"
        for number in dict.fromkeys(info.get("redis_version", "") for info in told)
        if number and _parts(number) < OLDEST
    ]
    if problems:
        return Fitness(version, tuple(problems))
    evaluate = Command("EVAL", ("return 1",), (1, key))
    _, found = await pipelined(client, [evaluate, Command(FITNESS, (key,), (*NEEDED, *WANTED))])
    lacking = [
        f"{name.decode()}{' (unknown to it)' if why == b'unknown' else ''}"
        for name, why in zip(found[::2], found[1::2], strict=True)
    ]
    needed = [name for name in lacking if name.split(" (")[0] in NEEDED]
    wanted = [name for name in lacking if name not in needed]
    if needed:
        problems.append(
            f"its user may not run {', '.join(needed)}: give it the commands that "
            "docs/operations.md lists"
        )
    warnings, notes = [], []
    if wanted:
        notes.append(f"its user may not run {', '.join(wanted)} (docs/operations.md)")
    if not told:
        notes.append("INFO is refused, so neither version nor evictions are watched")
    for info in told:
        warnings += _evicts(info)
        notes += _persists(info)
    return Fitness(
        version,
        tuple(problems),
        tuple(dict.fromkeys(warnings)),
        tuple(dict.fromkeys(notes)),
        _evicted(told),
    )


class Vitals(Struct, frozen=True):
    """How the server, or all of a cluster, is doing. `limit_bytes` is 0 where there is none;
    `evicted` counts from its start."""

    evicted: int
    used_bytes: int
    limit_bytes: int
    saves: bool


async def vitals(client: Client) -> Vitals | None:
    """How Redis is doing; None where it may not be asked. Raises `StoreUnavailableError`."""
    told = await infos(client)
    if not told:
        return None
    return Vitals(
        evicted=_evicted(told) or 0,
        used_bytes=sum(int(info.get("used_memory", 0)) for info in told),
        limit_bytes=sum(int(info.get("maxmemory", 0)) for info in told),
        saves=all(info.get(name, "ok") == "ok" for info in told for name in _SAVES),
    )


def _evicted(told: Sequence[Mapping[str, str]]) -> int | None:
    return sum(int(info.get("evicted_keys", 0)) for info in told) if told else None


def _evicts(info: Mapping[str, str]) -> list[str]:
    policy = info.get("maxmemory_policy", "noeviction")
    if policy == "noeviction" or not int(info.get("maxmemory", 0)):
        return []
    evicted = int(info.get("evicted_keys", 0))
    so_far = f" ({evicted:,} keys so far)" if evicted else ""
    return [
        f"maxmemory-policy is {policy}: when memory is full, state is evicted without a word"
        f"{so_far}; set it to noeviction"
    ]


def _persists(info: Mapping[str, str]) -> list[str]:
    notes = []
    if not int(info.get("aof_enabled", 0)):
        notes.append(
            "appendonly is off: a crash takes the state back to the last snapshot, and it is to "
            "be built anew from the log"
        )
    states = {name: info.get(name, "ok") for name in _SAVES}
    return notes + [f"{name} is {state}" for name, state in states.items() if state != "ok"]


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
