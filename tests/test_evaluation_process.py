"""Where the process that measures a run may load its model."""

from pathlib import Path

import pytest
from command_line import Cli, command
from nvml_material import install_cards

from qlora_tui.config.overrides import resolve
from qlora_tui.errors import ExitCode
from qlora_tui.evaluation import process
from qlora_tui.evaluation.tasks import LossTask
from qlora_tui.runs import events, jobs, store
from qlora_tui.runs.event_log import EventWriter
from qlora_tui.runs.store import RunFolder

__all__ = ["command"]
_SAYS_ITS_GPUS = (
    'import json, os; print(json.dumps({"kind": "result", "gpus": os.environ.get("CUDA_VISIBLE_DEVICES")}))'
)


@pytest.fixture
def busy() -> RunFolder:
    """A run whose worker said that it works on the second GPU."""
    run = store.create("busy", resolve("starter", None, ["model.device=auto"]), {})
    on_it = events.Resolved(field="model.device", value="cuda", reason="most free memory", gpu_uuid="GPU-1")
    EventWriter(run.events).write(on_it)
    return run


def test_a_model_is_not_measured_beside_a_run_that_trains(
    command: Cli, monkeypatch: pytest.MonkeyPatch, busy: RunFolder
) -> None:
    install_cards(monkeypatch, 20, 20, visible="1")
    with jobs.hold(busy):
        refused = command("eval", "loss", "busy", "--checkpoint", "1")
    assert refused.code == ExitCode.CONFLICT
    assert "training on GPU 1" in refused.err and "--device cpu" in refused.err


@pytest.mark.parametrize(("device", "expected"), [("auto", "GPU-0"), ("cuda", None)])
def test_a_model_is_measured_on_a_gpu_without_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, busy: RunFolder, device: str, expected: str | None
) -> None:
    (tmp_path / "says_its_gpus.py").write_text(_SAYS_ITS_GPUS)
    monkeypatch.setattr(process, "PROCESS", "says_its_gpus")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    install_cards(monkeypatch, 20, 20)
    task = LossTask.model_validate({"name": "loss", "device": device})
    with jobs.hold(busy):
        [found] = process.measure(busy, task)
    assert found["gpus"] == expected
