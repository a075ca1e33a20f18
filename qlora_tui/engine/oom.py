"""When memory runs out: recognising it, and the smallest change of settings that needs less."""

from typing import Any

import torch

from qlora_tui import hardware
from qlora_tui.config.run import RunConfig
from qlora_tui.engine.preflight import Preflight
from qlora_tui.errors import OutOfMemoryError
from qlora_tui.memory.stored_estimate import covers
from qlora_tui.units import memory

_MESSAGES = (
    "can't allocate memory", "not enough memory", "std::bad_alloc", "cannot allocate memory",
    "out of memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed",
)  # fmt: skip
"""Memory outside PyTorch's own allocator that runs out is a plain RuntimeError: the host's, CUDA's, a library's."""


class Exhausted(OutOfMemoryError):
    """Memory ran out. `peak_bytes` is the most that was allocated before."""

    def __init__(
        self, config: RunConfig, checkpointing: bool, device: torch.device, expected: Preflight | None = None
    ) -> None:
        self.peak_bytes = peak_bytes(device)
        where = "GPU" if device.type == "cuda" else "host"
        message = f"{where} memory ran out; the peak before was {memory(self.peak_bytes)}"
        if expected is not None:
            now, free = expected.estimate, memory(expected.device.free_bytes)
            batch = covers(now.rows, now.row_tokens, expected.device.kind, counted=expected.longest is not None)
            message += f"; the estimate was {memory(now.need_bytes)} with {free} free, for {batch}"
        better = expected.advice() if expected is not None else ""
        super().__init__(message, hint=better or advice(config, checkpointing))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that GPU or host memory ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MESSAGES)


def smaller(config: RunConfig, checkpointing: bool) -> dict[str, Any]:
    """The next settings to try, dotted field to value; empty when only other training would help.

    First the micro batch by its smallest divisor, with so many times the accumulation, which keeps the effective batch;
    then checkpointing.
    """
    rows, accumulation = config.training.micro_batch_size, config.training.gradient_accumulation_steps
    if rows > 1:
        divisor = next(number for number in range(2, rows + 1) if rows % number == 0)
        return {
            "training.micro_batch_size": rows // divisor,
            "training.gradient_accumulation_steps": accumulation * divisor,
        }
    if not checkpointing:
        return {"training.gradient_checkpointing": "on"}
    return {}


def advice(config: RunConfig, checkpointing: bool) -> str:
    """The smallest change that needs less memory, as a sentence."""
    changes = smaller(config, checkpointing)
    if changes:
        flags = " ".join(f"--set {key}={value}" for key, value in changes.items())
        return f"Try {flags}, or let --replan-on-oom do it."
    spec = config.training
    return (
        f"Lower training.max_length_tokens (now {spec.max_length_tokens}) or adapter.rank (now {config.adapter.rank}), "
        "or choose a smaller model."
    )


def peak_bytes(device: torch.device) -> int:
    """Most bytes allocated so far: on the GPU by PyTorch, on a CPU run by the whole process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return hardware.peak_memory_bytes()
