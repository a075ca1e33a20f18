"""The workbench is ended from outside: the terminal is restored, and a terminal that was closed leaves no process."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_PATIENCE_S = 60.0
_LEAVE_SCREEN = b"\x1b[?1049l"


@pytest.fixture
def workbench(tmp_path: Path) -> "tuple[subprocess.Popen[bytes], int]":
    """A workbench in a terminal of its own, with its first frame drawn, and the other side of the terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "qlora_tui"], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    read_until(ours, b"Setup")
    return process, ours


def read_until(terminal: int, wanted: bytes) -> None:
    seen, deadline = b"", time.monotonic() + _PATIENCE_S
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], deadline - time.monotonic())
        assert ready, f"{wanted!r} was never written"
        seen += os.read(terminal, 1 << 16)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_restores_the_terminal(workbench: "tuple[subprocess.Popen[bytes], int]", number: int) -> None:
    process, terminal = workbench
    process.send_signal(number)
    read_until(terminal, _LEAVE_SCREEN)
    assert process.wait(_PATIENCE_S) == 128 + number
    os.close(terminal)


def test_closing_the_terminal_ends_the_process(workbench: "tuple[subprocess.Popen[bytes], int]") -> None:
    process, terminal = workbench
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    assert process.wait(_PATIENCE_S) == 128 + signal.SIGHUP
