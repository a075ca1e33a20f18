"""Memory that runs out is an event with advice, or a smaller plan with the same effective batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from training_material import Runs

from qlora_tui import hardware
from qlora_tui.config.overrides import resolve
from qlora_tui.engine import oom
from qlora_tui.errors import ExitCode
from qlora_tui.memory import history
from qlora_tui.memory.record import before_start
from qlora_tui.runs import events, jobs, store
from qlora_tui.runs.event_log import EventReader
from qlora_tui.runs.fingerprint import record

_LIMIT_KIB = 3_600_000
"""Address space of the worker: enough to load PyTorch and the starter, too little for 1,024 rows at once."""


def train_in_little_memory(name: str, folder: Path, *options: str) -> int:
    """Train two steps of 1,024 rows under an address-space limit; the exit code."""
    settings = {
        "training.micro_batch_size": 1024,
        "training.gradient_accumulation_steps": 1,
        "training.max_steps": 2,
        "training.save_every_steps": 1,
    }
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "qlora_tui", "train", "starter", "--name", name, *flags, *options]
    limited = ["sh", "-c", f'ulimit -v {_LIMIT_KIB}; exec "$@"', "sh", *command]
    return subprocess.run(limited, cwd=folder, capture_output=True).returncode


def test_running_out_of_memory_says_what_would_fit(tmp_path: Path) -> None:
    assert train_in_little_memory("big", tmp_path) == ExitCode.OUT_OF_MEMORY
    failed = jobs.replay(store.find("big")).failed
    assert failed is not None
    assert failed.where == "training"
    assert failed.peak_bytes > 0
    assert "GiB" in failed.message
    assert "training.micro_batch_size=512" in failed.hint


@pytest.mark.parametrize(
    ("rows", "accumulation", "plan"),
    [(16, 1, (8, 2)), (6, 2, (3, 4)), (3, 2, (1, 6)), (15, 1, (5, 3)), (1, 4, None)],
)
def test_a_smaller_micro_batch_keeps_the_effective_one(
    rows: int, accumulation: int, plan: tuple[int, int] | None
) -> None:
    settings = {"training.micro_batch_size": rows, "training.gradient_accumulation_steps": accumulation}
    config = resolve(overrides=[f"{key}={value}" for key, value in settings.items()])
    changes = oom.smaller(config, checkpointing=True)
    assert changes == (dict(zip(settings, plan, strict=True)) if plan else {})


@pytest.mark.long
def test_replanning_halves_the_micro_batch_and_keeps_the_effective_one(tmp_path: Path) -> None:
    assert train_in_little_memory("big", tmp_path, "--replan-on-oom") == ExitCode.OK
    run = store.find("big")
    seen = list(EventReader(run.events).read())
    changes = [event.changes for event in seen if isinstance(event, events.Replanned)]
    assert changes[0] == {"training.micro_batch_size": 512, "training.gradient_accumulation_steps": 2}
    for change in changes:
        assert change["training.micro_batch_size"] * change["training.gradient_accumulation_steps"] == 1024
    assert {event.effective_batch_rows for event in seen if isinstance(event, events.TrainingPlanned)} == {1024}
    assert jobs.replay(run).phase == "finished"
    assert json.loads(run.plan.read_text())


def test_a_large_parent_does_not_count_into_the_peak() -> None:
    ask = "from qlora_tui.hardware import peak_memory_bytes; print(peak_memory_bytes())"
    parent = f"import subprocess, sys; held = b'1' * (1 << 28); subprocess.run([sys.executable, '-c', {ask!r}])"
    answer = subprocess.run([sys.executable, "-c", parent], check=True, capture_output=True, text=True).stdout
    assert 1 << 20 < int(answer) < 1 << 28


def test_a_finished_run_keeps_its_estimate_beside_what_it_took(runs: Runs) -> None:
    run = runs.create("small", "training.max_steps=1", "training.gradient_checkpointing=auto")
    shown = before_start(run.load_config(), hardware.snapshot())
    record(run, estimate=shown)
    assert runs.train(run).phase == "finished"
    [checked] = history.checked_runs()
    plan = json.loads(run.plan.read_text())
    before, expected = plan["estimate"], plan["estimate_of_rows"]
    assert before == shown, "the worker leaves the estimate that was shown as it is"
    assert checked.run == "small" and checked.estimated_bytes == expected["peak_bytes"]
    assert checked.before_bytes == before["need_bytes"] + before["paged_bytes"]
    assert before["longest_tokens"] is None and before["row_tokens"] == 64, "it was made before the rows were read"
    assert expected["longest_tokens"] == expected["row_tokens"]
    assert abs(checked.error) < 0.4
    assert expected["kind"] == "cpu" and expected["rows"] == 4 and expected["row_tokens"] <= 64
    reasons = {item.field: item for item in jobs.replay(run).resolved}
    assert reasons["training.gradient_checkpointing"].value == "off"
    assert "GiB" in reasons["training.gradient_checkpointing"].reason


_FAULTY = """
from qlora_tui.memory import estimate

def broken(*_, **__):
    raise ZeroDivisionError("no layers")

estimate.estimate = broken
"""


def test_a_fault_of_the_estimator_is_a_warning_and_the_run_goes_on(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_FAULTY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    run = runs.finished("small", "training.max_steps=1", "training.gradient_checkpointing=auto")
    state = jobs.replay(run)
    [warning] = [each for each in state.warnings if each.code == "memory"]
    assert "no estimate" in warning.message and "no layers" in warning.message
    reasons = {item.field: item for item in state.resolved}
    assert reasons["training.gradient_checkpointing"].value == "off"
    assert "estimate" not in json.loads(run.plan.read_text())
    assert history.checked_runs() == []
