"""Which GPUs runs are training on, so that another model is loaded beside none of them."""

from qlora_tui import hardware
from qlora_tui.errors import RunConflictError
from qlora_tui.runs import jobs, store


def beside_training() -> dict[str, str]:
    """What to add to the environment of a process that loads a model, so that it finds only GPUs without a run.

    Empty when none is in its way. Raises RunConflictError when runs are on every GPU that this program sees, or one is
    on a GPU that it has not named yet: the run could then run out of memory.
    """
    gpus = hardware.snapshot().gpus
    training = _training() if gpus else {}
    if unknown := training.get(""):
        raise _conflict(unknown, "the GPU")
    free = [gpu.uuid for gpu in gpus if gpu.uuid not in training]
    if len(free) == len(gpus):
        return {}
    if not free:
        raise _conflict(training[gpus[0].uuid], f"GPU {gpus[0].index}")
    return {"CUDA_VISIBLE_DEVICES": ",".join(free)}


def _conflict(name: str, where: str) -> RunConflictError:
    return RunConflictError(
        f"run {name!r} is training on {where}, and a model beside it could take the memory that it needs",
        hint="Use the CPU with --device cpu, or share the GPU with --device cuda.",
    )


def _training() -> dict[str, str]:
    """Names of the live runs on GPUs, each under its GPU's UUID; under "" while that is unknown."""
    found: dict[str, str] = {}
    for run in store.all_runs():
        if jobs.is_alive(run):
            device = jobs.replay(run).device
            kind = device.value if device else run.load_config().model.device
            if kind != "cpu":
                found[device.gpu_uuid if device else ""] = run.name
    return found
