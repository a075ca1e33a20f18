"""The whole way in a real terminal: first start, the starter demo, a chat answer, without a mouse."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

SOCKET = "qlora-tui-walk"


class Terminal:
    """A tmux session of its own."""

    def __init__(self, columns: int, rows: int, folder: Path) -> None:
        program = [sys.executable, "-m", "qlora_tui"]
        self._tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(folder), *program)

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def until(self, pattern: str, seconds: float) -> str:
        """The screen once it shows `pattern`; fails with what it shows instead."""
        end_s = time.monotonic() + seconds
        while not re.search(pattern, screen := self.screen()):
            assert time.monotonic() < end_s, f"{pattern!r} was not shown:\n{screen}"
        return screen

    def screen(self) -> str:
        return self._tmux("capture-pane", "-p")

    def close(self) -> None:
        self._tmux("kill-server", check=False)

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
    terminal.until("Starter demo", 20)
    terminal.press("d")
    terminal.until("training|step", 60)
    terminal.until("finished", 600)
    terminal.press("a")
    terminal.until("Ask something", 20)
    terminal.type("Where is the lamp?")
    terminal.press("Enter")
    answered = terminal.until("tokens/s", 120)
    assert "The lamp is" in answered or "lamp" in answered.partition("Where is the lamp?")[2]
