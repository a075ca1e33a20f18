"""What this machine has, as one immutable snapshot: GPUs through NVML, the host through psutil.

A sensor that a card or a driver lacks is None. No GPU and no driver is a machine with an empty list of GPUs. GPUs that
CUDA_VISIBLE_DEVICES hides are not there for any program of ours, so that all of them mean the same ones.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Reading = TypeVar("Reading")


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int
    """As nvidia-smi counts them, whatever is hidden; of a MIG instance, its card's."""

    name: str
    uuid: str
    """What CUDA_VISIBLE_DEVICES can call it: "GPU-..." or, of a MIG instance, "MIG-..."."""

    total_bytes: int
    free_bytes: int
    compute_capability: tuple[int, int] | None
    utilization_percent: int | None
    temperature_c: int | None
    power_w: float | None


@dataclass(frozen=True, slots=True)
class Machine:
    gpus: tuple[Gpu, ...]
    driver: str | None
    """Version of the NVIDIA driver, or None without one."""
    cpu_cores: int
    cpu_percent: float
    ram_total_bytes: int
    ram_available_bytes: int


def snapshot() -> Machine:
    """Read every sensor once."""
    import psutil

    memory = psutil.virtual_memory()
    driver, gpus = _read_gpus()
    return Machine(
        gpus=gpus,
        driver=driver,
        cpu_cores=psutil.cpu_count() or 1,
        cpu_percent=psutil.cpu_percent(),
        ram_total_bytes=memory.total,
        ram_available_bytes=memory.available,
    )


def free_disk_bytes(folder: Path) -> int:
    """Free bytes on the disk that holds `folder` or its nearest existing parent."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def peak_memory_bytes() -> int:
    """Most memory that this program has held so far, resident, without what its parent held.

    On Linux from VmHWM: the ru_maxrss of getrusage(2) begins at the size of the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int:
    """Resident memory of this process now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def cpu_has_native_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX512-BF16, AMX or Arm's bf16)."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def _read_gpus() -> tuple[str | None, tuple[Gpu, ...]]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None, ()
    try:
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        found = (_read_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
        return driver, _visible(pynvml, tuple(gpu for gpu in found if gpu is not None))
    except pynvml.NVMLError:
        return None, ()
    finally:
        pynvml.nvmlShutdown()


def _visible(pynvml: Any, gpus: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """Those that CUDA shows, in its order: up to the first name that is none, and none when one is named twice.

    Rules: "CUDA environment variables" in NVIDIA's CUDA programming guide; torch.cuda reads them the same way.
    """
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is None:
        return gpus
    shown: list[Gpu] = []
    for name in names.split(","):
        gpu = _named(pynvml, name.strip(), gpus)
        if gpu is None:
            break
        if gpu.uuid in (other.uuid for other in shown):
            return ()
        shown.append(gpu)
    return tuple(shown)


def _named(pynvml: Any, name: str, gpus: tuple[Gpu, ...]) -> Gpu | None:
    """The GPU of that index, or whose UUID begins so, or the MIG instance of that UUID."""
    if name.startswith("MIG-"):
        return _read_instance(pynvml, name)
    if name.startswith("GPU-"):
        found = [gpu for gpu in gpus if gpu.uuid.startswith(name)]
        return found[0] if len(found) == 1 else None
    number = re.match(r"\d+", name)
    return next((gpu for gpu in gpus if number and gpu.index == int(number[0])), None)


def _read_instance(pynvml: Any, uuid: str) -> Gpu | None:
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        index = pynvml.nvmlDeviceGetIndex(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle))
    except pynvml.NVMLError:
        return None
    return _read_handle(pynvml, handle, int(index))


def _read_gpu(pynvml: Any, index: int) -> Gpu | None:
    """None for a card that fell off the bus: the others are there still."""
    try:
        return _read_handle(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index), index)
    except pynvml.NVMLError:
        return None


def _read_handle(pynvml: Any, handle: Any, index: int) -> Gpu | None:

    def sensor(read: Callable[[], Reading]) -> Reading | None:
        try:
            return read()
        except pynvml.NVMLError:
            return None

    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name, uuid = str(pynvml.nvmlDeviceGetName(handle)), str(pynvml.nvmlDeviceGetUUID(handle))
    except pynvml.NVMLError:
        return None
    rates = sensor(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle))
    milliwatts = sensor(lambda: pynvml.nvmlDeviceGetPowerUsage(handle))
    capability = sensor(lambda: pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    return Gpu(
        index=index,
        name=name,
        uuid=uuid,
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        compute_capability=(int(capability[0]), int(capability[1])) if capability else None,
        utilization_percent=int(rates.gpu) if rates else None,
        temperature_c=sensor(lambda: int(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))),
        power_w=milliwatts / 1000 if milliwatts is not None else None,
    )
