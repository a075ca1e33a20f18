"""What this machine has, as one immutable snapshot: GPUs through NVML, the host through psutil.

A sensor that a card or a driver lacks is None. No GPU and no driver is a machine with an empty list of GPUs.
"""

from __future__ import annotations

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
    name: str
    uuid: str
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
        return driver, tuple(gpu for gpu in found if gpu is not None)
    except pynvml.NVMLError:
        return None, ()
    finally:
        pynvml.nvmlShutdown()


def _read_gpu(pynvml: Any, index: int) -> Gpu | None:
    """None for a card that fell off the bus: the others are there still."""

    def sensor(read: Callable[[], Reading]) -> Reading | None:
        try:
            return read()
        except pynvml.NVMLError:
            return None

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
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
