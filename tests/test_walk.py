"""The whole way in a real terminal: first start, the starter demo, a chat answer, without a mouse."""

import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SOCKET = "qlora-tui-walk"
RECORD = Path(__file__).parents[1] / "build" / "walk"
"""What was on screen at each stop, as text."""


class Terminal:
    """A tmux session of its own."""

    def __init__(self, columns: int, rows: int, folder: Path) -> None:
        program = [sys.executable, "-m", "qlora_tui"]
        self._tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(folder), *program)
        self._record = RECORD / f"{columns}x{rows}"
        self._record.mkdir(parents=True, exist_ok=True)
        attach = ["tmux", "-L", SOCKET, "-C", "attach-session", "-f", "ignore-size,read-only"]
        self._news = subprocess.Popen(attach, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def until(self, pattern: str, seconds: float) -> str:
        """The screen once it shows `pattern`; fails with what it shows instead. Looks when something was painted."""
        assert self._news.stdout is not None
        end_s = time.monotonic() + seconds
        while not re.search(pattern, screen := self.screen()):
            left_s = end_s - time.monotonic()
            assert left_s > 0, f"{pattern!r} was not shown:\n{screen}"
            if select.select([self._news.stdout], [], [], left_s)[0]:
                assert os.read(self._news.stdout.fileno(), 1 << 20), f"the program has ended:\n{screen}"
        return screen

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def record(self, name: str) -> None:
        """Keep what is on screen, for people to look at."""
        (self._record / f"{name}.txt").write_text(self.screen())

    def close(self) -> None:
        self._tmux("kill-server", check=False)
        self._news.communicate()

    @staticmethod
    def _tmux(*arguments: str, check: bool = True) -> str:
        command = ["tmux", "-L", SOCKET, *arguments]
        return subprocess.run(command, check=check, capture_output=True, text=True, env=dict(os.environ)).stdout


@pytest.fixture(params=[(80, 24), (160, 45)], ids=["80x24", "160x45"])
def terminal(request: pytest.FixtureRequest, tmp_path: Path, home: Path) -> Iterator[Terminal]:
    opened = Terminal(*request.param, tmp_path)
    yield opened
    opened.close()


def test_from_first_start_to_an_answer(terminal: Terminal) -> None:
    terminal.until(r"(?s)Starter demo.*RAM|RAM.*Starter demo", 20)
    terminal.record("1-first-start")
    terminal.press("d")
    terminal.until(r"of \d+ steps", 120)
    terminal.record("2-training")
    terminal.until(r"Sample, step \d+: Who is Daisy", 600)
    terminal.record("3-sample")
    terminal.until("Press Enter to ask: Who is Daisy", 600)
    terminal.press("Enter")
    terminal.until("Daisy is a tailor from Riverton", 120)
    terminal.record("4-suggested")
    terminal.type("Where is the lamp?")
    terminal.press("Enter")
    answered = terminal.until(r"(?s)Where is the lamp\?.*base: \d+ tokens.*adapter: \d+ tokens", 120)
    terminal.record("4-answer")
    assert re.search(r"\w+", answered.partition("Where is the lamp?")[2])
    terminal.press("F5")
    terminal.until(r"1 of 1 runs", 20)
    terminal.record("5-runs")
