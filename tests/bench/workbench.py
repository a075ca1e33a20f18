"""Seconds from the start of the interpreter to the first painted frame, beside a bare Textual app."""

import subprocess
import sys
import time
from statistics import median

from tests.bench.report import Ratio

_RUNS = 7
_FRAME = """
import asyncio, sys
{imports}

{base}.on_ready = lambda self: self.call_after_refresh(self.exit)

async def paint():
    await {base}().run_async(headless=True, size=(120, 40))

asyncio.run(paint())
"""
_BARE = _FRAME.format(
    imports="""
from textual.app import App
from textual.widgets import Footer, Static

class Bare(App):
    def compose(self):
        yield Static("hello")
        yield Footer()
""",
    base="Bare",
)
_OURS = _FRAME.format(imports="from qlora_tui.ui.app import Workbench", base="Workbench")


def measure() -> list[Ratio]:
    """Median seconds of each program, run in turn."""
    seconds: dict[str, list[float]] = {"bare": [], "ours": []}
    for _ in range(_RUNS):
        for name, program in (("bare", _BARE), ("ours", _OURS)):
            began_s = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began_s)
    ours, bare = median(seconds["ours"]), median(seconds["bare"])
    return [
        Ratio("first frame of the workbench, s / 0.6 s", ours, 0.6, 1, at_least=False),
        Ratio("first frame of the workbench, s / bare Textual app", ours, bare, 2, at_least=False),
    ]
