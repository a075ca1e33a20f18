"""What an estimate is held against: a card or a host, how much of it is free, and how many of them share the run."""

import os
import re
from dataclasses import dataclass, replace
from typing import Literal

from qlora_tui import hardware
from qlora_tui.errors import EnvironmentProblem, UsageError
from qlora_tui.memory import context

GIB = 1 << 30
CARDS_GB = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 192)
"""Sizes of cards as they are sold. Drivers count them in GiB."""

USABLE = 0.985
"""Share of a card that a program can have: the driver keeps the rest (a 24 GB card offers 23.64 GiB)."""

CONTEXT_BYTES = 500 << 20
"""CUDA context and loaded kernels, until it is measured: 300 to 400 MB with lazy loading by a PyTorch maintainer
(pytorch issue 109888), more once many kernels have run."""

HOST_WORK_BYTES = 150 << 20
"""CPU memory of a process in addition to its imports and tensors: threads, run-time kernels, and what malloc
keeps between tensors of changing size."""

Kind = Literal["cuda", "cpu"]
Strategy = Literal["single", "ddp", "fsdp", "layer split"]


@dataclass(frozen=True, slots=True)
class Device:
    """Where a run is to fit. All bytes are those of one card."""

    kind: Kind
    name: str
    total_bytes: int
    free_bytes: int
    """What a new process can have now, its context among it."""

    context_bytes: int = CONTEXT_BYTES
    context_measured: bool = False
    count: int = 1
    strategy: Strategy = "single"
    native_bf16: bool = True
    compute_capability: tuple[int, int] | None = None
    uuid: str = ""
    """Of a card of this machine, as CUDA_VISIBLE_DEVICES calls it."""


def card(size_gb: float, *, count: int = 1, strategy: Strategy = "single") -> Device:
    """An empty card of that size, as sold."""
    total = round(size_gb * GIB)
    name = f"{size_gb:g} GB card"
    return Device("cuda", name, total, round(total * USABLE), count=count, strategy=strategy)


def host(machine: hardware.Machine) -> Device:
    """This machine's RAM."""
    imported_bytes, measured = context.imported_bytes()
    return Device(
        "cpu",
        "RAM",
        machine.ram_total_bytes,
        machine.ram_available_bytes,
        context_bytes=imported_bytes + HOST_WORK_BYTES,
        context_measured=measured,
        native_bf16=hardware.cpu_has_native_bf16(),
    )


def gpu(found: hardware.Gpu) -> Device:
    """A card of this machine, with the context that was measured on it."""
    capability = found.compute_capability
    measured = context.measured_bytes(found.name)
    return Device(
        "cuda",
        found.name,
        found.total_bytes,
        found.free_bytes,
        context_bytes=measured or CONTEXT_BYTES,
        context_measured=measured is not None,
        native_bf16=capability is None or capability >= (8, 0),
        compute_capability=capability,
        uuid=found.uuid,
    )


def automatic(machine: hardware.Machine, wanted: Literal["auto", "cpu", "cuda"] = "auto") -> Device:
    """Where a run with that `model.device` would train: the card with the most free memory, else the host.

    Raises EnvironmentProblem when CUDA is wanted and there is none.
    """
    if wanted == "cuda" and not machine.gpus:
        raise EnvironmentProblem(
            'model.device is "cuda", but no NVIDIA GPU is found',
            hint="Run `qlora-tui doctor`, or name the card you mean: --gpu 24GB.",
        )
    if wanted == "cpu" or not machine.gpus:
        return host(machine)
    return gpu(max(machine.gpus, key=lambda found: found.free_bytes))


def parse(text: str, machine: hardware.Machine) -> Device:
    """The device that "24GB", "2x24GB", "auto", "cpu" or the index of a GPU of this machine names.

    Raises UsageError for anything else, EnvironmentProblem for a GPU that is not there.
    """
    words = text.strip().lower()
    if words in ("auto", "cpu"):
        return automatic(machine, "cpu" if words == "cpu" else "auto")
    if words.isdecimal():
        return _numbered(int(words), machine)
    matched = re.fullmatch(r"(?:(\d+)\s*x\s*)?(\d+(?:\.\d+)?)\s*(g|gb|gib)", words)
    if matched is None:
        raise UsageError(
            f"--gpu {text}: not a card", hint='Write a size such as 24GB or 2x24GB, "auto", "cpu", or a GPU\'s index.'
        )
    count, size = int(matched[1] or 1), float(matched[2])
    if not size or not count:
        raise UsageError(f"--gpu {text}: a card needs memory", hint="Write a size such as 24GB.")
    device = card(size)
    return device if count == 1 else replace(device, count=count, strategy="ddp")


def _numbered(index: int, machine: hardware.Machine) -> Device:
    found = {each.index: each for each in machine.gpus}
    if index in found:
        return gpu(found[index])
    reason = "the NVIDIA driver does not answer (NVML)" if machine.driver is None else "there is no such GPU"
    if machine.driver is not None and "CUDA_VISIBLE_DEVICES" in os.environ:
        reason = f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} shows no such GPU"
    known = ", ".join(f"{number} ({each.name})" for number, each in found.items()) or "none"
    raise EnvironmentProblem(
        f"--gpu {index}: {reason}", hint=f"GPUs of this machine: {known}. For a card of 24 GB write --gpu 24GB."
    )
