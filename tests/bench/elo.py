"""Elo of 40,000 matches in 10,000 random orders, as a process of its own."""

import subprocess
import sys

from tests.bench.report import Ratio

_MATCHES = 40_000
_ORDERS = 10_000
_PLAY = """
import sys, time
import numpy as np
from qlora_tui.arena.elo import EloSettings, over_orders
from qlora_tui.arena.matches import Matches
from qlora_tui.hardware import peak_memory_bytes
matches, orders, models = int(sys.argv[1]), int(sys.argv[2]), 8
rng = np.random.default_rng(0)
first = rng.integers(0, models, matches)
second = (first + rng.integers(1, models, matches)) % models
score = rng.choice([0.0, 0.5, 1.0], matches)
names = [str(number) for number in range(models)]
played = Matches(names, ["q"], first, second, score, np.zeros(matches, dtype=np.intp))
before = peak_memory_bytes()
began_s = time.perf_counter()
found = over_orders(played, EloSettings(orders=orders))
seconds = time.perf_counter() - began_s
assert abs(found.mean.sum() - 1000 * models) < 1e-6 * orders
print(seconds, (peak_memory_bytes() - before) / (1 << 20))
"""


def measure() -> list[Ratio]:
    """Seconds and MiB of a tournament as large as the original work's largest."""
    command = [sys.executable, "-c", _PLAY, str(_MATCHES), str(_ORDERS)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, mebibytes = map(float, output.split())
    return [
        Ratio("Elo of 40,000 matches in 10,000 orders, s / 20 s", seconds, 20, 1, at_least=False),
        Ratio("memory of that, MiB / 256 MiB", mebibytes, 256, 1, at_least=False),
    ]
