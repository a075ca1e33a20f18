"""Fixtures of the tests that really train."""

import sys
from collections.abc import Iterator

import pytest
from training_material import Runs

from qlora_tui.runs import jobs


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads on shared cores wait for each other more than they compute at this size."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def runs() -> Iterator[Runs]:
    """Runs whose workers are gone when the test ends, however it ends."""
    made = Runs()
    yield made
    for run in made.made:
        if jobs.is_alive(run):
            jobs.cancel(run, print)
