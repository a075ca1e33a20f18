"""The Run place under load: keys while a run writes, plots of long runs, a million steps, and doing nothing."""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from textual import events as keys
from textual.pilot import Pilot

from qlora_tui.config.run import RunConfig
from qlora_tui.hardware import peak_memory_bytes
from qlora_tui.runs import jobs, store
from qlora_tui.runs.events import Step
from qlora_tui.runs.series import Series
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder
from qlora_tui.ui.app import Workbench
from qlora_tui.ui.curves import curves
from qlora_tui.ui.screens.run import RunPlace
from tests.bench.report import Ratio

_PRESSES = 300
_EVENTS_PER_S = 1000
_IDLE_S = 15.0
_DRAWINGS = 20
_SIZE = (160, 45)
_WRITE = """
import sys, time
line, path, per_s = sys.argv[1].encode(), sys.argv[2], int(sys.argv[3])
number, began = 0, time.monotonic()
with open(path, "ab", buffering=0) as file:
    while True:
        while number < (time.monotonic() - began) * per_s:
            number += 1
            file.write(line.replace(b'"step":0', b'"step":%d' % number) + b"\\n")
        time.sleep(0.002)  # the beat of the writer: two events at a time
"""


def measure() -> list[Ratio]:
    """Each part in a process of its own."""
    found: list[Ratio] = []
    for part in ("keys", "plots", "idle", "long"):
        with tempfile.TemporaryDirectory() as home:
            command = [sys.executable, "-m", "tests.bench.run_place", part]
            environment = {**os.environ, "QLORA_TUI_HOME": home}
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
        for what, ours, theirs in json.loads(output):
            found.append(Ratio(what, ours, theirs, 1, at_least=False))
    return found


def _step(number: int) -> Step:
    return Step(
        seq=number, time_s=1_800_000_000 + number, step=number, epoch=0, loss=1 + random.random(), learning_rate=1e-4,
        grad_norm=1 + random.random(), tokens=number, tokens_per_s=2000,
    )  # fmt: skip


def _run(steps: int) -> RunFolder:
    run = store.create("one", RunConfig(), {})
    with run.events.open("w") as file:
        for number in range(1, steps + 1):
            file.write(_step(number).model_dump_json() + "\n")
    return run


async def _attached(pilot: Pilot[Any], app: Workbench) -> RunPlace:
    """The Run place once it shows all of the run and its plots."""
    while not (
        isinstance(app.screen, RunPlace)
        and app.screen.view is not None
        and app.screen.view.status != "reading"
        and app.screen.query("#plot-norm.-drawn")
    ):
        await pilot.pause(0.02)
    return app.screen


async def _keys() -> list[tuple[str, float, float]]:
    """From a key that moves the cursor of the plot to the repaint that shows it there."""
    run = _run(2000)
    line = _step(0).model_dump_json()
    with jobs.hold(run):
        writer = subprocess.Popen([sys.executable, "-c", _WRITE, line, str(run.events), str(_EVENTS_PER_S)])
        app = Workbench(run="one")
        seconds: list[float] = []
        spent: list[float] = []
        try:
            async with app.run_test(size=_SIZE) as pilot:
                place = await _attached(pilot, app)
                plot: Any = place.query_one("#plot-loss").focus()
                painted = asyncio.Event()
                place.watch(plot, "cursor", lambda: plot.call_after_refresh(painted.set), init=False)
                await pilot.pause(1)
                for number in range(_PRESSES):
                    passed_s, spent_s = await _press(app, painted, "left" if number % 2 or not number else "right")
                    seconds.append(passed_s)
                    spent.append(spent_s)
                    await asyncio.sleep(random.uniform(0.02, 0.08))  # a person's pace, at no fixed beat of a view
        finally:
            writer.kill()
    name = f"key to repaint at {_EVENTS_PER_S:,} events/s"
    return [
        (f"{name}, median, ms / 50 ms", median(seconds) * 1000, 50),
        (f"{name}, p99, ms / 50 ms", quantiles(seconds, n=100)[-1] * 1000, 50),
        (f"{name}, p99 of computer time, ms / 50 ms", quantiles(spent, n=100)[-1] * 1000, 50),
    ]


async def _press(app: Workbench, painted: asyncio.Event, key: str) -> tuple[float, float]:
    """Seconds on the clock, and of this process, which other programs do not lengthen."""
    painted.clear()
    began_s, before_s = time.perf_counter(), time.process_time()
    app.post_message(keys.Key(key, None))
    await painted.wait()
    return time.perf_counter() - began_s, time.process_time() - before_s


async def _plots() -> list[tuple[str, float, float]]:
    """Computer time of one drawing of the large plot."""
    from qlora_tui.ui.widgets.curve_plot import CurvePlot
    from qlora_tui.ui.widgets.plot_line import Line

    _run(10)
    app = Workbench(run="one")
    drawn = []
    async with app.run_test(size=_SIZE) as pilot:
        place = await _attached(pilot, app)
        await pilot.pause(1)
        plot = place.query_one("#plot-loss", CurvePlot)
        for steps in (100, 10_000, 1_000_000):
            state = RunState(
                steps=Series[Step](("loss", "grad_norm")).extend([_step(number) for number in range(1, steps + 1)])
            )
            spent_s = []
            for _ in range(_DRAWINGS):
                began_s = time.process_time()
                found = curves(state)
                plot.show("loss", [Line("", found.loss, "loss", "faint"), Line("train", found.smoothed, "loss")])
                await pilot.pause()
                spent_s.append(time.process_time() - began_s)
            drawn.append((f"plot of a run of {steps:,} steps drawn, ms / 50 ms", median(spent_s) * 1000, 50.0))
    return drawn


async def _idle() -> list[tuple[str, float, float]]:
    """Computer time of a Run place that shows a run that has ended."""
    _run(5000)
    app = Workbench(run="one")
    async with app.run_test(size=_SIZE) as pilot:
        await _attached(pilot, app)
        await pilot.pause(2)
        before_s = time.process_time()
        await asyncio.sleep(_IDLE_S)  # what is measured is what happens in a time in which nothing happens
        percent = (time.process_time() - before_s) / _IDLE_S * 100
    return [("idle, % of a core / 2 %", percent, 2.0)]


async def _long() -> list[tuple[str, float, float]]:
    """Opening a run of a million steps: until it is whole on screen, memory, and the longest the screen stood still."""
    steps = 1_000_000
    run = _run(1000)
    block = run.events.read_bytes()
    with Path(run.events).open("ab") as file:
        for _ in range(steps // 1000 - 1):
            file.write(block)
    app = Workbench(run="one")
    async with app.run_test(size=_SIZE) as pilot:
        before = peak_memory_bytes()
        began_s = last_s = time.perf_counter()
        before_s, longest_s, longest_spent_s = time.process_time(), 0.0, 0.0
        last_spent_s = before_s
        attached = asyncio.create_task(_attached(pilot, app))
        while not attached.done():
            await asyncio.sleep(0.005)  # how late it comes back is how long the screen stood still
            now_s, now_spent_s = time.perf_counter(), time.process_time()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s
            longest_spent_s, last_spent_s = max(longest_spent_s, now_spent_s - last_spent_s), now_spent_s
        seconds, spent_s = time.perf_counter() - began_s, time.process_time() - before_s
        grown = (peak_memory_bytes() - before) / (1 << 20)
    return [
        ("a 1,000,000-step run opened, s / 10 s", seconds, 10),
        ("computer time of that, s / 10 s", spent_s, 10),
        ("memory of that, MiB / 128 MiB", grown, 128),
        ("longest the screen stood still meanwhile, ms / 100 ms", longest_s * 1000, 100),
        ("computer time of that, ms / 100 ms", longest_spent_s * 1000, 100),
    ]


if __name__ == "__main__":
    parts = {"keys": _keys, "plots": _plots, "idle": _idle, "long": _long}
    print(json.dumps(asyncio.run(parts[sys.argv[1]]())))
