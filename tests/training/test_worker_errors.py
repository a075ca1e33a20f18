"""What a worker says when a library fails in words of its own."""

from pathlib import Path

import pytest
import torch
from training_material import Runs

from qlora_tui.config.run import RunConfig
from qlora_tui.engine.worker import _explained
from qlora_tui.errors import ExitCode
from qlora_tui.runs import store


def test_a_failed_write_of_a_library_is_told_as_what_the_disk_said() -> None:
    run = store.create("one", RunConfig(), {})
    with pytest.raises(RuntimeError) as raised:
        torch.save(torch.zeros(100_000), "/dev/full")
    assert _explained(raised.value, run).exit_code == ExitCode.STORAGE
    serializing = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    told = _explained(serializing, run)
    assert told.exit_code == ExitCode.STORAGE
    assert str(run.path) in told.message and "No space left" in told.message and "free some space" in told.hint


def test_an_error_that_is_no_failed_write_is_a_fault_of_ours() -> None:
    run = store.create("one", RunConfig(), {})
    for error in (RuntimeError("shapes differ"), ConnectionError("refused"), FileNotFoundError("x")):
        assert _explained(error, run).exit_code == ExitCode.INTERNAL


def test_a_library_that_cannot_be_imported_is_named_with_a_remedy(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a PyTorch or bitsandbytes built for another CUDA than the driver has."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.12: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    failed = runs.train(runs.create("one")).failed
    assert failed is not None and failed.exit_code == ExitCode.ENVIRONMENT
    assert failed.message.startswith("torch cannot be imported: OSError: libcudart.so.12")
    assert "qlora-tui doctor" in failed.hint


def test_run_ignores_the_distributed_environment_of_a_job_script(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("MASTER_PORT", "29511")
    assert runs.train(runs.create("one", "training.max_steps=1")).phase == "finished"
