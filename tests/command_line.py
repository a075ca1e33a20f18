"""The command line as a test types it: in this process, with its output and exit code."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from qlora_tui import cli
from qlora_tui.errors import QloraError
from qlora_tui.forecast import speed
from qlora_tui.runs import jobs, store
from qlora_tui.runs.follow import Follower
from qlora_tui.runs.state import RunState
from qlora_tui.runs.store import RunFolder


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Cli = Callable[..., Result]
PROGRAM = (
    "from qlora_tui.runs import jobs; jobs.WORKER = 'fake_worker'; from qlora_tui.cli import main; "
    "import sys; sys.argv[0] = 'qlora-tui'; main()"
)
"""The command as a program for `python -c`, with workers that train nothing."""


def _not_measured(*_: object) -> None:
    raise QloraError("a test measures nothing")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs `qlora-tui` with the given words. The speed of the machine is not measured."""
    monkeypatch.setattr(speed, "measure", _not_measured)

    def run(*words: str) -> Result:
        monkeypatch.setattr("sys.argv", ["qlora-tui", *words])
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes workers behave as named (see `fake_worker`); ends those that are left."""
    monkeypatch.setattr(jobs, "WORKER", "fake_worker")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("FAKE_WORKER", "finish")
    yield lambda behaviour: monkeypatch.setenv("FAKE_WORKER", behaviour)
    for run in store.all_runs():
        if jobs.is_alive(run):
            kill(run)


def kill(run: RunFolder) -> None:
    """kill -9, as it is done to a worker that the kernel finds too big."""
    os.killpg(jobs.replay(run).pid, signal.SIGKILL)
    assert jobs.wait_until_dead(run, 10)


def until(run: RunFolder, condition: Callable[[RunState], bool]) -> RunState:
    """The state at which `condition` holds; fails when the worker ends before."""
    follower = Follower(run)
    for _ in follower.batches():
        if condition(follower.state):
            return follower.state
    raise AssertionError(f"the worker ended before: {follower.state}")
