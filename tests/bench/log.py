"""Writing events, and replaying the log of a run of a million steps."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qlora_tui.runs.event_log import EventWriter
from qlora_tui.runs.events import Step
from tests.bench.report import Ratio

_WRITTEN = 20_000
_STEPS = 1_000_000
_REPLAY = """
import sys, time
from pathlib import Path
from qlora_tui.hardware import peak_memory_bytes
from qlora_tui.runs.jobs import replay
from qlora_tui.runs.store import RunFolder
before = peak_memory_bytes()
began_s = time.perf_counter()
state = replay(RunFolder(Path(sys.argv[1])))
seconds = time.perf_counter() - began_s
assert state.step_number == int(sys.argv[2])
print(seconds, (peak_memory_bytes() - before) / (1 << 20))
"""


def measure() -> list[Ratio]:
    """Events written per second, and seconds and MiB of a replay."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        writer = EventWriter(path)
        began_s = time.perf_counter()
        for number in range(_WRITTEN):
            writer.write(_step(number + 1))
        per_s = _WRITTEN / (time.perf_counter() - began_s)
        writer.close()
        _fill(path, _STEPS)
        command = [sys.executable, "-c", _REPLAY, folder, str(_STEPS)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    seconds, mebibytes = map(float, output.split())
    return [
        Ratio("events written, per s / 1,000", per_s, 1000, 1),
        Ratio("replay of a 1,000,000-step log, s / 5 s", seconds, 5, 1, at_least=False),
        Ratio("memory of that replay, MiB / 64 MiB", mebibytes, 64, 1, at_least=False),
    ]


def _step(number: int) -> Step:
    return Step(
        seq=number, time_s=1_800_000_000.125 + number, step=number, epoch=number / 1000, loss=1 + 1 / number,
        learning_rate=1e-4, grad_norm=0.123456789012345, tokens=number * 2048, tokens_per_s=2345.6,
        allocated_bytes=7_000_000_000, peak_bytes=8_000_000_000,
    )  # fmt: skip


def _fill(path: Path, steps: int) -> None:
    with path.open("w") as file:
        for number in range(1, steps + 1):
            file.write(_step(number).model_dump_json() + "\n")
