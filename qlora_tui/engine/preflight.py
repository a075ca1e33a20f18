"""The memory estimate of a run that is about to train: what decides checkpointing and goes into plan.json."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from qlora_tui import hardware
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import QloraError
from qlora_tui.memory import advisor, context, device
from qlora_tui.memory.device import Device
from qlora_tui.memory.estimate import Estimate, estimate
from qlora_tui.memory.record import entry
from qlora_tui.memory.stored_estimate import Longest
from qlora_tui.models import describe
from qlora_tui.models.facts import ModelFacts
from qlora_tui.redaction import traceback_of
from qlora_tui.units import memory

if TYPE_CHECKING:
    from qlora_tui.engine.resolve import Settings


class NoEstimateError(QloraError):
    """What a run needs cannot be told."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """An estimate and what it was made for."""

    config: RunConfig
    facts: ModelFacts
    device: Device
    estimate: Estimate
    longest: Longest | None

    def record(self) -> dict[str, Any]:
        """Entry of plan.json, to be compared with the measured peak."""
        return entry(self.estimate, self.device, self.longest)

    def advice(self) -> str:
        """The smallest change that the estimate says would fit, as a sentence; empty when it says that it fits now."""
        now = self.estimate
        try:
            changes = advisor.suggestions(self.config, self.facts, now, longest_tokens=now.row_tokens, replay=True)
        except Exception as error:  # A fault of the estimator must not hide that memory ran out.
            print(traceback_of(error), file=sys.stderr, flush=True)
            return ""
        fitting = [each for each in changes if each.fits]
        if not fitting:
            return ""
        best = fitting[0]
        return f"Try {advisor.as_flags(best.changes)}: that needs about {memory(best.need_bytes)} ({best.why})."


def preflight(config: RunConfig, settings: Settings, longest: Longest | None = None) -> Preflight:
    """Estimate a run with these settings. `longest`: the longest rows, if they were counted.

    Raises NoEstimateError when too little is known about the model, and for any error of the estimator: the run
    can continue without one.
    """
    try:
        facts = describe(config.model.id, config.model.revision)
        settled = _settled(config, settings)
        where = device_now(settings.device)
        tokens = (longest.train_tokens, longest.eval_tokens) if longest is not None else (None, 0)
        found = estimate(settled, facts, where, longest_tokens=tokens[0], longest_eval_tokens=tokens[1], replay=True)
        return Preflight(settled, facts, where, found, longest)
    except QloraError as error:
        raise NoEstimateError(error.message) from error
    except Exception as error:
        print(traceback_of(error), file=sys.stderr, flush=True)
        raise NoEstimateError(f"{type(error).__name__}: {error}") from error


def checkpointing(config: RunConfig, settings: Settings, longest: Longest | None = None) -> tuple[bool, str]:
    """Decide whether "auto" enables gradient checkpointing, and why: only when the run does not fit otherwise.

    `longest`: the rows of the estimate made before the start, so that both decisions agree.
    """
    undecided = config.training.model_copy(update={"gradient_checkpointing": "off"})
    try:
        found = preflight(config.model_copy(update={"training": undecided}), settings, longest)
    except NoEstimateError:
        on_gpu = settings.device.type == "cuda"
        return on_gpu, "saves GPU memory" if on_gpu else "on a CPU time is scarcer than memory"
    stored, free = found.estimate, found.device.free_bytes
    need = stored.high_bytes + stored.paged_bytes
    beside = f"up to {memory(need)} without it, {memory(free)} free"
    return (False, f"not needed: {beside}") if need <= free else (True, f"needed: {beside}")


def device_now(where: torch.device) -> Device:
    """The device of this process with what is free on it now."""
    if where.type == "cpu":
        return device.host(hardware.snapshot())
    free_bytes, total_bytes = torch.cuda.mem_get_info(where)
    capability, name = torch.cuda.get_device_capability(where), torch.cuda.get_device_name(where)
    measured = context.measured_bytes(name)
    context_bytes = measured or device.CONTEXT_BYTES
    # This process has its CUDA context already, so what is free is free for tensors.
    return Device(
        "cuda",
        name,
        total_bytes,
        free_bytes + context_bytes,
        context_bytes=context_bytes,
        context_measured=measured is not None,
        native_bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        compute_capability=(capability[0], capability[1]),
    )


def _settled(config: RunConfig, settings: Settings) -> RunConfig:
    """The configuration with what "auto" has become."""
    model = {
        "device": settings.device.type,
        "dtype": _name(settings.dtype),
        "attention": settings.attention,
    }
    chosen = config.training.gradient_checkpointing
    training = {
        "optimizer": settings.optimizer,
        "gradient_checkpointing": ("on" if settings.gradient_checkpointing else "off") if chosen == "auto" else chosen,
    }
    quantization = {"compute_dtype": _name(settings.compute_dtype)} if config.quantization.is_four_bit else {}
    return config.model_copy(
        update={
            "model": config.model.model_copy(update=model),
            "training": config.training.model_copy(update=training),
            "quantization": config.quantization.model_copy(update=quantization),
        }
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
