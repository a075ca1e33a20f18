"""Fixtures of the tests that really train."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_material import Runs

from qlora_tui.runs import jobs, store


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads on shared cores wait for each other more than they compute at this size."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True)
def answers_elsewhere(request: pytest.FixtureRequest, home: Path) -> Iterator[None]:
    """Open every run that a test finished in plain transformers and PEFT, which must answer the same."""
    yield
    finished = [run for run in store.all_runs() if (run.adapter / "README.md").is_file()]
    if not finished or request.node.get_closest_marker("damages_the_run"):
        return
    import elsewhere

    for run in finished:
        if jobs.replay(run).phase == "finished" and elsewhere.is_here(run):
            elsewhere.compare(run)


@pytest.fixture
def runs() -> Iterator[Runs]:
    """Runs whose workers are gone when the test ends, however it ends."""
    made = Runs()
    yield made
    for run in made.made:
        if jobs.is_alive(run):
            jobs.cancel(run, print)
