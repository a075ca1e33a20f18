"""Recent load of the machine, recorded while the app is open."""

import time
from collections import deque
from typing import NamedTuple

from qlora_tui.hardware import Machine

PERIOD_S = 1.0
READINGS = 600
"""Maximum number of readings: ten minutes at one reading per period."""

_BARS = "▁▂▃▄▅▆▇█"


class Load(NamedTuple):
    """Shares between 0 and 1."""

    ram: float
    cpu: float
    vram: tuple[float, ...]
    """Load per GPU."""


class LoadHistory:
    """The newest readings, at most one per period. Threads may record and read at the same time."""

    def __init__(self) -> None:
        self._readings: deque[Load] = deque(maxlen=READINGS)
        self._recorded_s = float("-inf")

    def record(self, machine: Machine) -> None:
        """Add a reading, unless the newest one is younger than a period."""
        now_s = time.monotonic()
        if now_s - self._recorded_s >= 0.9 * PERIOD_S:
            self._recorded_s = now_s
            self._readings.append(load_of(machine))

    @property
    def readings(self) -> tuple[Load, ...]:
        """All readings, oldest first."""
        return tuple(self._readings)


def load_of(machine: Machine) -> Load:
    """Return the shares in use now."""
    ram = 1 - machine.ram_available_bytes / machine.ram_total_bytes
    vram = tuple(1 - gpu.free_bytes / gpu.total_bytes for gpu in machine.gpus)
    return Load(ram, machine.cpu_percent / 100, vram)


def sparkline(shares: list[float], width: int) -> str:
    """Return the newest readings as one line of bars from 0 to 1; of more than fit, the highest of each column."""
    if len(shares) > width > 0:
        size = -(-len(shares) // width)
        shares = [max(shares[start : start + size]) for start in range(0, len(shares), size)]
    return "".join(_BARS[min(int(max(share, 0.0) * len(_BARS)), len(_BARS) - 1)] for share in shares)
