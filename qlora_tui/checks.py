"""What must be right on this machine before anything can be trained: one finding each, with a remedy.

Findings that need torch come from a child process, `qlora_tui.engine.doctor`.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from qlora_tui import __version__, hardware, paths
from qlora_tui.data.downloads import offline
from qlora_tui.units import disk, memory

Verdict = Literal["ok", "note", "problem", "broken"]
"""broken: nothing can be trained. problem: something will fail. note: good to know."""

_CHILD = "qlora_tui.engine.doctor"
_CHILD_S = 180.0
_HUB_S = 4.0
_LOW_DISK_BYTES = 5 * 10**9
_LOW_RAM_BYTES = 2 * 10**9


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    verdict: Verdict
    detail: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def all_findings() -> Iterator[Finding]:
    """Every check, one after another; those that take seconds come last."""
    yield Finding("qlora-tui", "ok", f"{__version__} on Python {platform.python_version()}, {platform.platform()}")
    yield from _machine()
    yield _disk("runs folder", paths.runs(), "QLORA_TUI_RUNS")
    yield _disk("hub cache", paths.hub_cache(), "HF_HOME")
    yield hub()
    yield from torch_stack()


def _machine() -> Iterator[Finding]:
    machine = hardware.snapshot()
    bf16 = "has" if hardware.cpu_has_native_bf16() else "has no"
    yield Finding("CPU", "ok", f"{machine.cpu_cores} cores, {bf16} native bfloat16")
    free = f"{memory(machine.ram_available_bytes)} of {memory(machine.ram_total_bytes)} available"
    if machine.ram_available_bytes < _LOW_RAM_BYTES:
        yield Finding("RAM", "problem", free, "Close other programs: loading a model needs RAM.")
    else:
        yield Finding("RAM", "ok", free)
    if machine.driver is None:
        yield Finding("NVIDIA driver", "note", "none: training runs on the CPU", "A GPU needs NVIDIA's driver.")
        return
    yield Finding("NVIDIA driver", "ok", machine.driver)
    for gpu in machine.gpus:
        capability = ".".join(map(str, gpu.compute_capability)) if gpu.compute_capability else "unknown"
        detail = (
            f"{gpu.name}, {memory(gpu.free_bytes)} of {memory(gpu.total_bytes)} free, compute capability {capability}"
        )
        yield Finding(f"GPU {gpu.index}", "ok", detail)


def _disk(subject: str, folder: Path, variable: str) -> Finding:
    """Whether the folder, or the nearest one above it that exists, can be written and has room."""
    import os

    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding(subject, "broken", f"{existing} is not writable", f"Change its permissions, or set {variable}.")
    free_bytes = hardware.free_disk_bytes(existing)
    detail = f"{disk(free_bytes)} free in {folder}"
    if free_bytes < _LOW_DISK_BYTES:
        return Finding(subject, "problem", detail, f"Free some space, or set {variable} to another disk.")
    return Finding(subject, "ok", detail)


def hub() -> Finding:
    """Whether models and datasets can be downloaded. Nothing is sent but one request."""
    if offline():
        return Finding("hub", "note", "off (HF_HUB_OFFLINE)", "Unset HF_HUB_OFFLINE to download models.")
    from huggingface_hub import get_session
    from huggingface_hub.constants import ENDPOINT

    try:
        answer = get_session().head(ENDPOINT, timeout=_HUB_S)
    except Exception as error:  # whatever the network stack raises: that it raised is the finding
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = "Check the connection or the proxy; local models and the starter work without it."
        return Finding("hub", "problem", f"{ENDPOINT} cannot be reached: {reason}", remedy)
    if answer.status_code >= 500:
        return Finding("hub", "problem", f"{ENDPOINT} answers {answer.status_code}", "Try again later.")
    return Finding("hub", "ok", f"{ENDPOINT} answers")


def torch_stack() -> Iterator[Finding]:
    """What the libraries say of themselves, asked in a child process: a crash in there is a finding too."""
    command = [sys.executable, "-m", _CHILD]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=_CHILD_S, check=False)
    except subprocess.TimeoutExpired:
        yield Finding("libraries", "broken", f"no answer within {_CHILD_S:.0f} s", f"Run `{' '.join(command)}`.")
        return
    for line in child.stdout.splitlines():
        try:
            yield Finding(**json.loads(line))
        except (ValueError, TypeError):
            continue
    if child.returncode != 0:
        lines = child.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"the check ended with code {child.returncode}"
        yield Finding("libraries", "broken", reason, "Install again: pip install --force-reinstall qlora-tui")
