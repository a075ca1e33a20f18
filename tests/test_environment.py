"""Which GPUs a program sees, and which one a worker is left with before torch is imported."""

import os
from unittest.mock import patch

import pytest
from command_line import Cli, command
from nvml_material import GIB, install_cards

from qlora_tui import hardware
from qlora_tui.config.overrides import resolve as configured
from qlora_tui.engine import environment
from qlora_tui.errors import EnvironmentProblem, ExitCode
from qlora_tui.memory import device

__all__ = ["command"]
LLAMA = "meta-llama/Llama-3.1-8B"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        pytest.param(None, [0, 1, 2], id="not-set"),
        pytest.param("", [], id="empty"),
        pytest.param("-1", [], id="none"),
        pytest.param("NoDevFiles", [], id="no-number"),
        pytest.param("1", [1], id="index"),
        pytest.param("2, 0", [2, 0], id="indices-in-their-order"),
        pytest.param("1,-1,2", [1], id="up-to-the-first-that-is-none"),
        pytest.param("0,7,1", [0], id="up-to-the-first-that-is-not-there"),
        pytest.param("1,1", [], id="one-twice-is-none"),
        pytest.param("GPU-2,GPU-0", [2, 0], id="uuid"),
        pytest.param("GPU-", [], id="ambiguous-uuid"),
        pytest.param("GPU-9", [], id="unknown-uuid"),
        pytest.param("MIG-9", [], id="unknown-instance"),
    ],
)
def test_only_the_gpus_that_cuda_will_show_are_seen(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: list[int]
) -> None:
    install_cards(monkeypatch, 10, 20, 15, visible=visible)
    machine = hardware.snapshot()
    assert [gpu.index for gpu in machine.gpus] == expected
    assert machine.driver == "595"


def test_an_instance_of_a_gpu_counts_with_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    instances = {"MIG-a": (1, 4 * GIB), "MIG-b": (0, 9 * GIB)}
    install_cards(monkeypatch, 23, 23, visible="MIG-a,MIG-b", instances=instances)
    seen = [(gpu.uuid, gpu.index, gpu.free_bytes) for gpu in hardware.snapshot().gpus]
    assert seen == [("MIG-a", 1, 4 * GIB), ("MIG-b", 0, 9 * GIB)]
    environment.choose_gpu("auto")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-b"


@pytest.mark.parametrize(
    ("wanted", "visible", "expected"),
    [
        pytest.param("auto", None, "GPU-1", id="most-free-memory"),
        pytest.param("cuda", "0,2", "GPU-2", id="only-among-those-allowed"),
        pytest.param("auto", "GPU-2,GPU-0", "GPU-2", id="by-name"),
        pytest.param("auto", "0", "0", id="the-one-allowed"),
        pytest.param("auto", "0,7,1", "0,7,1", id="not-one-that-cuda-hides"),
        pytest.param("auto", "", "", id="none-allowed"),
        pytest.param("cpu", None, "", id="a-cpu-run-sees-none"),
    ],
)
def test_a_worker_sees_one_gpu(
    monkeypatch: pytest.MonkeyPatch, wanted: str, visible: str | None, expected: str
) -> None:
    install_cards(monkeypatch, 10, 20, 15, visible=visible)
    environment.choose_gpu(wanted)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_a_lone_gpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    install_cards(monkeypatch, 10)
    environment.choose_gpu("auto")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("order", [None, "FASTEST_FIRST"])
def test_cuda_counts_gpus_as_the_driver_does(order: str | None) -> None:
    with patch.dict(os.environ, {"CUDA_DEVICE_ORDER": order} if order else {}):
        environment.prepare(allow_download=True)
        assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


LAUNCHED = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "node1", "MASTER_PORT": "29500",
            "OMPI_COMM_WORLD_SIZE": "2", "ACCELERATE_MIXED_PRECISION": "fp16", "TORCHELASTIC_RUN_ID": "x"}  # fmt: skip


def test_inherited_distributed_environment_is_removed() -> None:
    with patch.dict(os.environ, LAUNCHED):
        environment.prepare(allow_download=True)
        assert not LAUNCHED.keys() & os.environ.keys()


def test_distributed_environment_of_our_own_launcher_is_kept() -> None:
    with patch.dict(os.environ, LAUNCHED | {environment.LAUNCHER: "1"}):
        environment.prepare(allow_download=True)
        assert os.environ.items() >= LAUNCHED.items()


def test_an_estimate_is_of_the_gpu_that_will_train(command: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker is left with that one too."""
    install_cards(monkeypatch, 23, 11, 7, visible="1,2")
    assert device.automatic(hardware.snapshot()).name == "card 1"
    assert " on card 1" in command("estimate", LLAMA).out
    refused = command("estimate", LLAMA, "--gpu", "0")
    assert refused.code == ExitCode.ENVIRONMENT
    assert "1 (card 1), 2 (card 2)" in refused.err and "CUDA_VISIBLE_DEVICES" in refused.err
    environment.choose_gpu("auto")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-1"


def test_a_gpu_that_pytorch_cannot_use_stops_a_run_that_would_fall_back_to_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from qlora_tui.engine.resolve import resolve

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    install_cards(monkeypatch, 23)
    with pytest.raises(EnvironmentProblem, match="card 0") as caught:
        resolve(configured("starter", None, ["model.device=auto"]))
    assert "qlora-tui doctor" in caught.value.hint
    assert resolve(configured("starter", None, ["model.device=cpu"])).device.type == "cpu"
    for visible in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert resolve(configured("starter", None, ["model.device=auto"])).device.type == "cpu"


@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_run_records_which_gpu_it_works_on(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    from qlora_tui.engine.resolve import resolve

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: True)
    install_cards(monkeypatch, 10, 20)
    environment.choose_gpu(wanted)
    settings = ["model.device=" + wanted, "training.gradient_checkpointing=on"]
    [device] = [each for each in resolve(configured("starter", None, settings)).reasons if each.field == "model.device"]
    assert (device.value, device.gpu_uuid) == ("cuda", "GPU-1")
    assert "GPU 1, card 1" in device.reason
