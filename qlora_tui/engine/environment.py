"""What every engine program does before it works: set the process environment, and import the torch stack."""

import importlib
import os

from qlora_tui import hardware
from qlora_tui.errors import EnvironmentProblem

_DEFAULTS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "warning",
    "OMP_WAIT_POLICY": "passive",
}
"""OpenMP threads that wait passively leave the cores to others: on busy cores training is several times faster."""

LAUNCHER = "QLORA_TUI_LAUNCHER"
"""Set by qlora-tui's own launcher of one process per GPU; the distributed environment is then kept."""

_DISTRIBUTED = {
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE",
    "ROLE_RANK", "ROLE_NAME", "ROLE_WORLD_SIZE", "CROSS_RANK", "CROSS_SIZE", "MASTER_ADDR", "MASTER_PORT",
    "MPI_LOCALRANKID", "MPI_LOCALNRANKS", "XLA_USE_BF16", "XLA_DOWNCAST_BF16",
}  # fmt: skip
_DISTRIBUTED_PREFIXES = (
    "ACCELERATE_", "FSDP_", "DEEPSPEED_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "TORCHELASTIC_", "SMDATAPARALLEL_",
    "SM_FRAMEWORK_", "OMPI_COMM_WORLD_", "PMI_", "MV2_COMM_WORLD_",
)  # fmt: skip
"""Variables that torch, accelerate and transformers read as set by a launcher."""


def prepare(*, allow_download: bool) -> None:
    """Set the environment variables that the libraries read on import.

    Telemetry and progress bars are off, and so are downloads unless they were allowed. GPUs are numbered as by the
    driver. The distributed environment of another program's launcher is removed: a process that inherits WORLD_SIZE=2
    from a job script would wait for the other process forever.

    Must run before torch, transformers, huggingface_hub or datasets is imported: they read the environment once.
    """
    if not os.environ.get(LAUNCHER):
        for variable in _inherited_from_launcher():
            del os.environ[variable]
    for variable, value in _DEFAULTS.items():
        os.environ.setdefault(variable, value)
    # CUDA counts the fastest GPU first, unless told otherwise; nvidia-smi, NVML and all of ours count by the bus.
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    if not allow_download:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _inherited_from_launcher() -> list[str]:
    return [name for name in os.environ if name in _DISTRIBUTED or name.startswith(_DISTRIBUTED_PREFIXES)]


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
