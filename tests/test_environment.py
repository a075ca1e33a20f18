"""Which GPU a worker is left with before torch is imported."""

import os

import pytest

from qlora_tui import hardware
from qlora_tui.engine import environment


def gpu(index: int, free_bytes: int) -> hardware.Gpu:
    return hardware.Gpu(index, "GPU", f"GPU-{index}", 80, free_bytes, (9, 0), None, None, None)


@pytest.mark.parametrize(
    ("device", "named", "expected"),
    [
        pytest.param("auto", None, "GPU-1", id="most-free-memory"),
        pytest.param("cuda", "0,2", "2", id="only-among-those-allowed"),
        pytest.param("auto", "GPU-2,GPU-0", "GPU-2", id="by-name"),
        pytest.param("auto", "0", "0", id="the-one-allowed"),
        pytest.param("auto", "", "", id="none-allowed"),
        pytest.param("cpu", None, "", id="a-cpu-run-sees-none"),
    ],
)
def test_a_worker_sees_one_gpu(monkeypatch: pytest.MonkeyPatch, device: str, named: str | None, expected: str) -> None:
    machine = hardware.Machine((gpu(0, 10), gpu(1, 30), gpu(2, 20)), "595", 1, 0.0, 1, 1)
    monkeypatch.setattr(hardware, "snapshot", lambda: machine)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    environment.choose_gpu(device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == expected


def test_a_lone_gpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "snapshot", lambda: hardware.Machine((gpu(0, 10),), "595", 1, 0.0, 1, 1))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    environment.choose_gpu("auto")
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
