"""How fast this machine multiplies weights as they are stored: measured once, and kept for later forecasts."""

import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from qlora_tui import atomic, paths
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import QloraError
from qlora_tui.memory.choices import choose
from qlora_tui.memory.device import Device
from qlora_tui.regular_files import read_bytes

CHILD = "qlora_tui.engine.speed"
_LARGEST_BYTES = 1 << 20
_PATIENCE_S = 300.0
_DTYPES = {4: "float32", 2: "bfloat16"}


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one forward and one backward pass through linear layers whose weights are not trained."""

    weight_s: float
    """Seconds for each weight, whatever the number of tokens: reading and dequantizing it in both passes."""

    flop_s: float
    """Seconds for each multiplication and addition."""

    call_s: float
    """Seconds for each layer, however small."""

    op_s: float
    """Seconds for each other small operation, such as a norm or an activation."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a speed is of."""

    device: str
    quantization: str
    dtype: str

    @classmethod
    def of(cls, config: RunConfig, device: Device) -> "Kind":
        """The arithmetic of a run on a device of this machine."""
        choices = choose(config, device)
        item_bytes = choices.compute_bytes if config.quantization.is_four_bit else choices.weight_bytes
        name = device.name if device.kind == "cuda" else f"cpu {platform.machine()} x {os.cpu_count()}"
        quantization = config.quantization.kind if config.adapter.kind == "lora" else "none"
        return cls(name, quantization, _DTYPES.get(item_bytes, "float32"))

    @property
    def key(self) -> str:
        return f"{self.device}|{self.quantization}|{self.dtype}|torch {_version('torch')}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def known(kind: Kind) -> Speed | None:
    """Return what was measured before, None when nothing was."""
    found = _all().get(kind.key)
    try:
        return Speed(**{name: float(value) for name, value in found.items()}) if isinstance(found, dict) else None
    except (TypeError, ValueError):
        return None


def measure(kind: Kind, device: Device) -> Speed:
    """Measure in a child process, in seconds on an idle machine, and keep the result. Raises QloraError."""
    request = {"device": device.kind, "quantization": kind.quantization, "dtype": kind.dtype}
    environment = paths.child_environment(**({"CUDA_VISIBLE_DEVICES": device.uuid} if device.uuid else {}))
    command = [sys.executable, "-m", CHILD, json.dumps(request)]
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False, env=environment
        )
        found = Speed(**json.loads(child.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError) as error:
        raise QloraError("this machine's speed could not be measured", hint="See `qlora-tui doctor`.") from error
    with atomic.storage_errors(_file()):
        _file().parent.mkdir(parents=True, exist_ok=True)
    atomic.write_json(_file(), {**_all(), kind.key: asdict(found)})
    return found


def _all() -> dict[str, object]:
    try:
        found = json.loads(read_bytes(_file(), _LARGEST_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _file() -> Path:
    return paths.data() / "speed.json"
