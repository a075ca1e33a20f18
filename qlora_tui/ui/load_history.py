"""Recent load of the machine while a run is on screen."""

from collections import deque
from typing import NamedTuple

from qlora_tui.hardware import Machine

READINGS = 600
"""Ten minutes at one reading a second."""

_BARS = "▁▂▃▄▅▆▇█"


class Load(NamedTuple):
    """Shares between 0 and 1."""

    ram: float
    cpu: float
    vram: tuple[float, ...]
    """Load per GPU."""


History = deque[Load]


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
