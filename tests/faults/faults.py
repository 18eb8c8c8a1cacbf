"""The faults: each befalls a running OneBar inside its block, and is over at its end."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)

from lines import Line
from msgspec import Struct

from deploy.real_servers import Server
from tests.faults.fleet import Member
from tests.faults.world import Servers, World

LASTS_S = (1.0, 6.0)
Befall = Callable[[World, random.Random], AbstractAsyncContextManager[None]]


class Fault(Struct, frozen=True):
    """What befalls, and which servers it needs to be ours."""

    befall: Befall
    can: Callable[[Servers], bool] = lambda servers: True

    @property
    def what(self) -> str:
        return (self.befall.__doc__ or "").strip().splitlines()[0]


def _kafka(servers: Servers) -> bool:
    return bool(servers.brokers)


def _nodes(servers: Servers) -> bool:
    return bool(servers.nodes)


def _replicas(servers: Servers) -> bool:
    return len(servers.nodes) > 1


# Processes


@asynccontextmanager
async def worker_killed(world: World, draw: random.Random) -> AsyncIterator[None]:
    """a process is killed (SIGKILL)"""
    if members := world.fleet.of("stream", "generator", "api"):
        world.fleet.kill(draw.choice(members))
    yield


@asynccontextmanager
async def workers_killed(world: World, draw: random.Random) -> AsyncIterator[None]:
    """all stream and generator workers are killed at once"""
    for member in world.fleet.of("stream", "generator"):
        world.fleet.kill(member)
    yield


@asynccontextmanager
async def worker_frozen(world: World, draw: random.Random) -> AsyncIterator[None]:
    """a worker stands still (SIGSTOP) until its partitions are another's, and goes on"""
    members = world.fleet.of("stream", "generator")
    child = draw.choice(members).child if members else None
    if child is not None:
        child.signal(signal.SIGSTOP)
    try:
        yield
        await asyncio.sleep(world.settings.session_timeout_s)
    finally:
        if child is not None:
            child.signal(signal.SIGCONT)


@asynccontextmanager
async def worker_restarted(world: World, draw: random.Random) -> AsyncIterator[None]:
    """a process is told to end (SIGTERM), and started again"""
    members = world.fleet.of("stream", "generator", "api")
    member = draw.choice(members) if members else None
    if member is not None:
        await world.fleet.stop(member)
    yield
    _again(world, member)


@asynccontextmanager
async def rebalance(world: World, draw: random.Random) -> AsyncIterator[None]:
    """one worker more comes, and goes"""
    member = world.fleet.add(draw.choice(("stream", "generator")))
    yield
    await world.fleet.leave(member)


def _again(world: World, member: Member | None) -> None:
    if member is not None and member.held and not member.running:
        world.fleet.begin(member)


# Lines


@contextmanager
def _through(lines: Sequence[Line], hinder: Callable[[Line], None]) -> Iterator[None]:
    """What goes through these lines is hindered, up to the end of the block."""
    for line in lines:
        hinder(line)
    yield
    for line in lines:
        line.release()


@asynccontextmanager
async def redis_cut(world: World, draw: random.Random) -> AsyncIterator[None]:
    """connections to Redis are reset, again and again"""
    async with _cut_again_and_again(world.servers.redis_lines):
        yield


@asynccontextmanager
async def redis_slow(world: World, draw: random.Random) -> AsyncIterator[None]:
    """what Redis is asked and answers is 50 to 400 ms on its way"""
    delay_s = draw.uniform(0.05, 0.4)
    with _through(world.servers.redis_lines, lambda line: line.slow(delay_s)):
        yield


@asynccontextmanager
async def redis_silent(world: World, draw: random.Random) -> AsyncIterator[None]:
    """nothing comes back from Redis (a black hole)"""
    with _through(world.servers.redis_lines, Line.hold):
        yield


@asynccontextmanager
async def kafka_cut(world: World, draw: random.Random) -> AsyncIterator[None]:
    """connections to Kafka are reset, again and again"""
    async with _cut_again_and_again(world.servers.kafka_lines):
        yield


@asynccontextmanager
async def kafka_slow(world: World, draw: random.Random) -> AsyncIterator[None]:
    """what Kafka is asked and answers is 50 to 400 ms on its way"""
    delay_s = draw.uniform(0.05, 0.4)
    with _through(world.servers.kafka_lines, lambda line: line.slow(delay_s)):
        yield


@asynccontextmanager
async def kafka_silent(world: World, draw: random.Random) -> AsyncIterator[None]:
    """nothing comes back from one broker, or from all (a black hole)"""
    lines = world.servers.kafka_lines
    lines = lines if draw.random() < 0.5 else [draw.choice(lines)]
    with _through(lines, Line.hold):
        yield


@asynccontextmanager
async def kafka_away(world: World, draw: random.Random) -> AsyncIterator[None]:
    """no broker takes a connection"""
    with _through(world.servers.kafka_lines, Line.shut):
        yield


@asynccontextmanager
async def _cut_again_and_again(lines: Sequence[Line], every_s: float = 0.7) -> AsyncIterator[None]:
    async def forever() -> None:
        while True:
            for line in lines:
                line.cut()
            await asyncio.sleep(every_s)

    task = asyncio.create_task(forever())
    try:
        yield
    finally:
        task.cancel()


# Servers


@asynccontextmanager
async def broker_killed(world: World, draw: random.Random) -> AsyncIterator[None]:
    """one of three brokers is killed, and started again"""
    async with _killed(draw.choice(world.servers.brokers)):
        yield


@asynccontextmanager
async def broker_frozen(world: World, draw: random.Random) -> AsyncIterator[None]:
    """one of three brokers stands still (SIGSTOP)"""
    async with _frozen(draw.choice(world.servers.brokers)):
        yield


@asynccontextmanager
async def redis_killed(world: World, draw: random.Random) -> AsyncIterator[None]:
    """Redis (one of its primaries) is killed, and started again on what it wrote to its disk"""
    async with _killed(
        world.servers.nodes[draw.choice(await world.servers.redis_nodes.primaries())]
    ):
        yield


@asynccontextmanager
async def redis_frozen(world: World, draw: random.Random) -> AsyncIterator[None]:
    """Redis (one of its primaries) stands still (SIGSTOP)"""
    async with _frozen(
        world.servers.nodes[draw.choice(await world.servers.redis_nodes.primaries())]
    ):
        yield


@asynccontextmanager
async def failover_behind(world: World, draw: random.Random) -> AsyncIterator[None]:
    """a replica lags, its primary is killed, and the replica takes its place: state is lost"""
    at = draw.choice(await world.servers.redis_nodes.primaries())
    line = world.servers.redis_lines[at]
    line.hold_replicas()
    await asyncio.sleep(draw.uniform(1.0, 3.0))
    async with _killed(world.servers.nodes[at]):
        line.cut()  # and with it what was on its way to the replica
        line.release()
        yield
        await _promoted(world.servers, at)


@asynccontextmanager
async def redis_full(world: World, draw: random.Random) -> AsyncIterator[None]:
    """Redis is full: it takes no writes"""
    await world.servers.redis_nodes.all_asked("CONFIG", "SET", "maxmemory", "1mb")
    yield
    await world.servers.redis_nodes.all_asked("CONFIG", "SET", "maxmemory", "0")


@asynccontextmanager
async def _killed(server: Server) -> AsyncIterator[None]:
    # Its end is waited for, which takes long on a busy machine: the lines run here meanwhile.
    await asyncio.to_thread(server.kill)
    try:
        yield
    finally:
        server.start()


@asynccontextmanager
async def _frozen(server: Server) -> AsyncIterator[None]:
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


async def _promoted(servers: Servers, dead: int, within_s: float = 20.0) -> None:
    """Wait until there are as many primaries as before."""
    wanted = max(1, len(servers.nodes) // 2)
    for _ in range(int(within_s / 0.2)):
        told = await servers.redis_nodes.all_asked("INFO", "replication")
        if sum(b"role:master" in each for at, each in enumerate(told) if at != dead) >= wanted:
            return
        await asyncio.sleep(0.2)


_ANYWHERE = (
    *(worker_killed, workers_killed, worker_frozen, worker_restarted, rebalance),
    *(redis_cut, redis_slow, redis_silent),
)
_OF_KAFKA = (
    *(kafka_cut, kafka_slow, kafka_silent, kafka_away),
    *(broker_killed, broker_frozen),
)
_OF_REDIS = (redis_killed, redis_frozen, redis_full)

FAULTS: Mapping[str, Fault] = {
    **{each.__name__: Fault(each) for each in _ANYWHERE},
    **{each.__name__: Fault(each, _kafka) for each in _OF_KAFKA},
    **{each.__name__: Fault(each, _nodes) for each in _OF_REDIS},
    "failover_behind": Fault(failover_behind, _replicas),
}


class Step(Struct, frozen=True):
    """Faults that befall together, for so long (s)."""

    names: tuple[str, ...]
    for_s: float
    seed: int


def steps(seed: int, names: Sequence[str]) -> Iterator[Step]:
    """Without end: each fault once in an order that is drawn, then in another; every third time
    one more befalls with it."""
    draw = random.Random(seed)
    while True:
        for name in draw.sample(names, len(names)):
            together: tuple[str, ...] = (name,)
            if draw.random() < 1 / 3:
                together = tuple(dict.fromkeys((name, draw.choice(names))))
            yield Step(together, draw.uniform(*LASTS_S), draw.randrange(2**31))


async def befall(world: World, step: Step) -> None:
    """Have a step's faults befall, and end."""
    draw = random.Random(step.seed)
    async with AsyncExitStack() as stack:
        for name in step.names:
            await stack.enter_async_context(FAULTS[name].befall(world, draw))
        await asyncio.sleep(step.for_s)
    # One that stood still has not heard it.
    await world.servers.redis_nodes.all_asked("CONFIG", "SET", "maxmemory", "0")
