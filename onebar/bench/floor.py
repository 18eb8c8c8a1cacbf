"""The least time that one prompt can take: weights read and multiplications made, at the rates of
this machine. An engine's distance from it says how much a better engine could still gain.

A simple roofline model (Williams et al., 2009) for each phase: the longer of reading the weights at
the bandwidth of a working set of that size, and multiplying at the rate of a large product.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

INT8_TO_FLOAT32 = 4
"""Multiplications of 8-bit integers a core with VNNI makes in the time of one in float32."""
PRODUCT = 768
"""Rows and columns of the product that the rate is taken from."""


class Shape(Struct, frozen=True):
    """What of an encoder-decoder's architecture its work depends on."""

    d_model: int
    encoder_layers: int
    encoder_ffn: int
    decoder_layers: int
    decoder_ffn: int
    outputs: int
    """Rows of the vocabulary that are scored a step."""

    @property
    def encoder_weights(self) -> int:
        return self.encoder_layers * (4 * self.d_model**2 + 2 * self.d_model * self.encoder_ffn)

    @property
    def decoder_weights(self) -> int:
        """Those that every step uses: self-attention, the two of cross-attention's four matrices
        that meet the decoder's states, the feed-forward, and the projection on the vocabulary."""
        layer = 6 * self.d_model**2 + 2 * self.d_model * self.decoder_ffn
        return self.decoder_layers * layer + self.outputs * self.d_model

    @property
    def crossing_weights(self) -> int:
        """Keys and values of cross-attention: used once a prompt."""
        return self.decoder_layers * 2 * self.d_model**2


class Machine(Struct, frozen=True):
    """Rates of some threads together."""

    bytes_per_s: float
    """Reading what fits where the weights of this model fit."""
    macs_per_s: float
    """Multiplications with their additions, 8-bit integers."""


def floor_s(
    shape: Shape, machine: Machine, *, source_tokens: float, steps: float, beams: int
) -> float:
    """Seconds that one prompt takes at least, with 8-bit weights.

    Attention scores, norms, softmax and the search itself are left out: it is a floor.
    """
    once = shape.encoder_weights + shape.crossing_weights

    def seconds(weights: int, rows: float) -> float:
        return max(weights / machine.bytes_per_s, weights * rows / machine.macs_per_s)

    return seconds(once, source_tokens) + steps * seconds(shape.decoder_weights, beams)


def measure_machine(working_set: int, threads: int) -> Machine:
    """The rates of `threads` threads, reading `working_set` bytes again and again.

    In a process of its own, whose BLAS has as many threads. Takes about a second.
    """
    count = str(threads)
    limits = {f"{name}_NUM_THREADS": count for name in ("OMP", "OPENBLAS", "MKL")}
    command = [sys.executable, "-P", "-m", "onebar.bench.floor", str(working_set), count]
    said = subprocess.run(
        command, env={**os.environ, **limits}, capture_output=True, text=True, check=True
    ).stdout
    return Machine(**json.loads(said))


def _rates(working_set: int, threads: int) -> dict[str, float]:
    import numpy as np

    part = np.ones(max(1024, working_set // threads // 4), np.float32)
    parts = [part.copy() for _ in range(threads)]
    square = np.ones((PRODUCT, PRODUCT), np.float32)
    with ThreadPoolExecutor(threads) as pool:

        def read() -> float:
            list(pool.map(lambda each: float(np.dot(each, each)), parts))
            return float(part.nbytes * threads)

        def multiply() -> float:
            np.dot(square, square)
            return float(PRODUCT**3)

        return {
            "bytes_per_s": _best_rate(read),
            "macs_per_s": INT8_TO_FLOAT32 * _best_rate(multiply),
        }


def _best_rate(work: object, seconds: float = 0.4) -> float:
    assert callable(work)
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        done = work()
        best = max(best, done / (time.perf_counter() - began))
    return best


if __name__ == "__main__":
    print(json.dumps(_rates(int(sys.argv[1]), int(sys.argv[2]))))
