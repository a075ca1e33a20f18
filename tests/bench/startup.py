"""How long the command line takes to say something, against a bare interpreter."""

import subprocess
import sys
import time
from statistics import median

from tests.bench.report import Ratio

_RUNS = 11


def measure() -> list[Ratio]:
    """Median seconds of each program, run in turn."""
    programs = {
        "bare": ["-c", "pass"],
        "help": ["-m", "qlora_tui", "--help"],
        "events": ["-c", "import qlora_tui.runs.jobs"],
        "config": ["-c", "import qlora_tui.config.overrides"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(_RUNS):
        for name, arguments in programs.items():
            began_s = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began_s)
    middle = {name: median(values) for name, values in seconds.items()}
    return [
        Ratio("qlora-tui --help, s / 0.3 s", middle["help"], 0.3, 1, at_least=False),
        Ratio("qlora-tui --help, s / bare interpreter", middle["help"], middle["bare"], 25, at_least=False),
        Ratio("import of the run folder, s / bare interpreter", middle["events"], middle["bare"], 25, at_least=False),
        Ratio(
            "import of the configuration, s / bare interpreter", middle["config"], middle["bare"], 25, at_least=False
        ),
    ]
