"""Clients that ask at a rate, and the highest rate at which answers are still what they are at a
light load.

The client is wrk: 200 connections, each of which asks again after a pause drawn by chance. A rate
is *held* where at least `KEPT_UP` of what is offered is answered, and at most `SHED` more of the
answers than at a light load are refused, or marked as having come to their deadline or as too much
(`reason: deadline`, `overload`). *Saturation* is the highest rate that is held. What is answered at
most says little: what is refused, or falls back, costs less than an answer that is whole, so that
more can be answered the more of it is nothing.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lookup import latency_ms, rate_of

CONNECTIONS = 200
KEPT_UP = 0.95
SHED = 0.01
LIGHT = 0.05
"""Of what is answered at most: a rate at which nothing waits for anything else."""
PROBE_S = 2
HALVINGS = 6
"""What is answered at most is halved so often, until a rate is held."""
STEPS = 2
"""Halvings of what is between that rate and the one before: the rate that is found is a quarter too
low at most."""
SCRIPT = """
local lines = {}
for line in io.lines("%(requests)s") do lines[#lines + 1] = line end
local at = math.random(#lines)
users, videos, served, shed = %(users)d, %(videos)d, 0, 0
local threads = {}
setup = function(thread) threads[#threads + 1] = thread end
local video = function()
  videos = videos + 1
  return string.format("%%05d", videos %% %(most)d)
end
request = function()
  at = at %% #lines + 1
  users = users + 1
  local line = lines[at]:gsub("@", users):gsub("#", video)
  return wrk.format(%(call)s)
end
response = function(status, headers, body)
  local function count(what) return select(2, body:gsub(what, "")) end
  served = served + count('"source":')
  shed = shed + count('"reason":"deadline"') + count('"reason":"overload"')
end
%(delay)s
done = function(summary, latency, requests)
  local late, served, shed, users, videos = 0, 0, 0, 0, 0
  for i = 1, #latency do
    local value, count = latency(i)
    if value > %(late_ms)d * 1000 then late = late + count end
  end
  for _, thread in ipairs(threads) do
    served, shed = served + thread:get("served"), shed + thread:get("shed")
    users, videos = thread:get("users"), thread:get("videos")
  end
  print("late: " .. late .. " of " .. summary.requests .. ", refused: " .. summary.errors.status
    .. ", broken: " .. summary.errors.read + summary.errors.write + summary.errors.timeout
    .. ", max: " .. latency.max .. ", mean: " .. latency.mean
    .. ", served: " .. served .. ", shed: " .. shed
    .. ", users: " .. users .. ", videos: " .. videos)
end
"""
TOLD = re.compile(
    r"late: (\d+) of (\d+), refused: (\d+), broken: (\d+), max: ([\d.]+), mean: ([\d.e+]+), "
    r"served: (\d+), shed: (\d+), users: (\d+), videos: (\d+)"
)


@dataclass
class Fresh:
    """Numbers that clients have used so far. Videos begin anew after `most`."""

    most: int
    users: int = 0
    videos: int = 0


@dataclass(frozen=True)
class Told:
    """What a client saw. `shed_share` is of the pairs that it asked for; times are in
    milliseconds."""

    per_s: float
    asked: int
    late: int
    refused: int
    broken: int
    shed_share: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True)
class Saturation:
    """The highest rate that is held; what is answered at most, and what a light load sees."""

    per_s: float
    at_most_per_s: float
    light: Told


class Client:
    """wrk, with requests of one kind: paths, or bodies of batches.

    In a request `@` and `#` become the next numbers of `fresh`: of a user, and of a video.
    """

    def __init__(
        self,
        work: Path,
        port: int,
        name: str,
        requests: Sequence[str],
        *,
        fresh: Fresh,
        late_ms: int,
    ) -> None:
        self._port = port
        self._file = work / f"{name}.requests"
        self._file.write_text("\n".join(requests) + "\n")
        self._script = work / f"{name}.lua"
        self._fresh = fresh
        self._late_ms = late_ms
        self._call = '"GET", line'
        if not requests[0].startswith("/"):
            self._call = '"POST", "/v1/queries", {["Content-Type"] = "application/json"}, line'

    def run(self, seconds: float, pause_ms: float = 0.0) -> Told:
        """Ask for so long, with pauses of so long on average between a connection's requests."""
        delay = ""
        if pause_ms:
            delay = f"function delay() return math.random(0, {max(1, round(2 * pause_ms))}) end"
        told = {
            "requests": self._file, "call": self._call, "delay": delay, "late_ms": self._late_ms,
            **asdict(self._fresh),
        }  # fmt: skip
        self._script.write_text(SCRIPT % told)
        command = [
            "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s", "--timeout", "10s",
            "--latency", "-s", str(self._script), f"http://127.0.0.1:{self._port}",
        ]  # fmt: skip
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = TOLD.search(said)
        assert found is not None, said
        late, asked, refused, broken = (int(found[n]) for n in range(1, 5))
        served, shed, self._fresh.users, self._fresh.videos = map(int, found.groups()[6:])
        unanswered = refused / max(1, asked)
        return Told(
            per_s=rate_of(said), asked=asked, late=late, refused=refused, broken=broken,
            shed_share=unanswered + (1 - unanswered) * shed / max(1, served),
            mean_ms=float(found[6]) / 1000, p50_ms=latency_ms(said, "50%"),
            p99_ms=latency_ms(said, "99%"), max_ms=round(float(found[5]) / 1000, 1),
        )  # fmt: skip

    def at(self, rate: float, seconds: float, mean_ms: float) -> Told:
        """Ask so many times a second, where an answer takes `mean_ms` on average."""
        return self.run(seconds, max(0.0, 1000 * CONNECTIONS / rate - mean_ms))

    def saturation(self) -> Saturation:
        """Find it, by trying rates for a few seconds each."""
        most = self.run(PROBE_S).per_s
        light = self.at(LIGHT * most, PROBE_S, 0.0)

        def holds(rate: float) -> bool:
            return held(rate, self.at(rate, PROBE_S, light.mean_ms), light)

        return Saturation(max(highest(holds, most), light.per_s, 1.0), most, light)


def held(offered: float, told: Told, light: Told) -> bool:
    """Whether at this rate answers are what they are at a light load, and keep up. Pure."""
    keeps_up = told.per_s >= KEPT_UP * offered
    return keeps_up and told.shed_share <= light.shed_share + SHED


def highest(
    holds: Callable[[float], bool], most: float, halvings: int = HALVINGS, steps: int = STEPS
) -> float:
    """The highest rate up to `most` that holds, or one less than `1 / 2**steps` of itself lower; 0
    where none down to `most / 2**halvings` does. Rates below one that holds are taken to hold.
    """
    low, above = most, 0
    while not holds(low):
        if above == halvings:
            return 0.0
        low, above = low / 2, above + 1
    if not above:
        return most
    high = 2 * low
    for _ in range(steps):
        middle = (low + high) / 2
        if holds(middle):
            low = middle
        else:
            high = middle
    return low
