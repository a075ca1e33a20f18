"""NVML of a machine that is not there: cards with so much free memory, and instances into which one is cut."""

import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

GIB = 1 << 30


class FakeNvml:
    """A handle is a UUID. `instances` names the MIG instances, each with its card's index and its free bytes."""

    class NVMLError(Exception):
        pass

    def __init__(self, free_bytes: tuple[int, ...], instances: Mapping[str, tuple[int, int]]) -> None:
        self.free_bytes = {f"GPU-{number}": free for number, free in enumerate(free_bytes)}
        self.instances = instances

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return "595"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.free_bytes)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return f"GPU-{index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid not in self.instances:
            raise self.NVMLError("Not Found")
        return uuid

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, handle: str) -> str:  # noqa: N802
        return f"GPU-{self.instances[handle][0]}"

    def nvmlDeviceGetIndex(self, handle: str) -> int:  # noqa: N802
        return int(handle.removeprefix("GPU-"))

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        free = self.instances[handle][1] if handle in self.instances else self.free_bytes[handle]
        return SimpleNamespace(total=24 * GIB, free=free)

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return f"card {handle.removeprefix('GPU-')}"

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvmlDeviceGet"):
            return self._unsupported
        return lambda *_: None

    def _unsupported(self, *_: Any) -> None:
        raise self.NVMLError("not supported")


def install_cards(
    patch: pytest.MonkeyPatch,
    *free_gib: int,
    visible: str | None = None,
    instances: Mapping[str, tuple[int, int]] | None = None,
) -> None:
    """Make this a machine with a card for each of `free_gib`, and CUDA_VISIBLE_DEVICES what `visible` says."""
    free_bytes = tuple(gib * GIB for gib in free_gib)
    patch.setitem(sys.modules, "pynvml", FakeNvml(free_bytes, instances or {}))  # type: ignore[arg-type]
    # Set first, so that what a test writes there is undone after it.
    patch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        patch.delenv("CUDA_VISIBLE_DEVICES")
