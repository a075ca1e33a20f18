"""What every engine program does before it works: set the process environment, and import the torch stack."""

import importlib
import os

from qlora_tui import hardware
from qlora_tui.errors import EnvironmentProblem

_DEFAULTS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "warning",
    "OMP_WAIT_POLICY": "passive",
}
"""OpenMP threads that wait passively leave the cores to others: on busy cores training is several times faster."""


def prepare(*, allow_download: bool) -> None:
    """Switch telemetry and progress bars off, and every download too unless it was allowed; number GPUs as the driver.

    Must run before torch, transformers, huggingface_hub or datasets is imported: they read the environment once.
    """
    for variable, value in _DEFAULTS.items():
        os.environ.setdefault(variable, value)
    # CUDA counts the fastest GPU first, unless told otherwise; nvidia-smi, NVML and all of ours count by the bus.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if not allow_download:
        os.environ["HF_HUB_OFFLINE"] = "1"


def choose_gpu(device: str) -> None:
    """Leave this process the GPU with the most free memory; a run on the CPU ("cpu") gets none.

    TRL's trainer refuses to work beside a second visible GPU, and the trainer's device is always the first one. Must
    run before torch is imported. Of several GPUs that CUDA_VISIBLE_DEVICES names, one of those is taken.
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    gpus = hardware.snapshot().gpus
    if len(gpus) > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = max(gpus, key=lambda gpu: gpu.free_bytes).uuid


def import_libraries(*names: str) -> None:
    """Import them in this order. Raises EnvironmentProblem naming the first that is missing or broken."""
    for name in names:
        if problem := import_problem(name):
            raise EnvironmentProblem(f"{name} {problem}", hint="`qlora-tui doctor` says what is wrong and what to do.")


def import_problem(name: str) -> str | None:
    """Why a library cannot be imported, to be read after its name; None when it can."""
    try:
        importlib.import_module(name)
    except Exception as error:  # an import may fail in any way: that it does is the finding
        return f"cannot be imported: {type(error).__name__}: {error}".splitlines()[0]
    return None
