"""Faults befall a running OneBar, and afterwards its state is what the log says, to the letter.

    make test-faults                                   # a seed of its own, three minutes
    make test-faults ARGS="--seed 7 --minutes 5"       # the same faults, in the same order, again
    make test-faults ARGS="--only failover_behind redis_killed --redis cluster"

Starts three brokers of Apache Kafka and Redis (as the seed draws: a primary with a replica and
Sentinels, a Redis Cluster of six, or one), each node behind a line that can be held, slowed and
cut; two stream workers, two generator workers and an API. A feed sends events through the API and
by producers whose clocks are wrong, some twice, some that are no events, and asks for queries.
Faults befall one after the other, some together; after each it is measured how long it takes until
all is well. In the end: Redis holds what a second fold makes of the log, which was written from
docs/events.md alone; every accepted event is in the log; dead letters are exactly the messages that
are no events; of each impression it was told what was generated; no lookup took a second more than
its budget; whatever was told to end did so within ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

from deploy.real_servers import CACHE, MISSING_STATUS, MissingServerError, ServerStartError
from tests.faults.faults import FAULTS
from tests.faults.run import run_on_own_servers
from tests.faults.world import NODES


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make test-faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="faults:\n" + "\n".join(f"  {name}: {f.what}" for name, f in FAULTS.items()),
    )
    parser.add_argument("--seed", type=int, help="what to draw from; one is drawn where none is")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long faults befall")
    parser.add_argument(
        "--redis", choices=sorted(NODES), help="which Redis, instead of a drawn one"
    )
    parser.add_argument("--only", nargs="+", choices=sorted(FAULTS), metavar="FAULT")
    options = parser.parse_args()
    seed = secrets.randbelow(10_000) if options.seed is None else options.seed
    logs = CACHE / "faults" / "logs"
    try:
        report = asyncio.run(
            run_on_own_servers(
                seed, options.minutes * 60, redis=options.redis, only=options.only, logs=Path(logs)
            )
        )
    except MissingServerError as error:
        print(f"test-faults: {error}", file=sys.stderr)
        return MISSING_STATUS
    except (ServerStartError, AssertionError) as error:  # before the first fault
        print(f"test-faults: {error}; logs are in {logs}", file=sys.stderr)
        return 1
    print(report.text())
    if report.found:
        again = f"--seed {seed} --minutes {options.minutes:g} --redis {report.redis}"
        print(f'FAILED. The same again: make test-faults ARGS="{again}"; logs are in {logs}')
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
