"""The memory estimate of a run that is about to train: what decides checkpointing and goes into plan.json."""

from __future__ import annotations

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
from qlora_tui.models import describe
from qlora_tui.models.facts import ModelFacts

if TYPE_CHECKING:
    from qlora_tui.engine.resolve import Settings


@dataclass(frozen=True, slots=True)
class Preflight:
    """An estimate and what it was made for."""

    config: RunConfig
    facts: ModelFacts
    device: Device
    estimate: Estimate

    def record(self) -> dict[str, Any]:
        """What plan.json keeps of it, to be held against the measured peak."""
        return entry(self.estimate, self.device)

    def advice(self) -> str:
        """The smallest change that the estimate says would fit, as a sentence; empty when it says that it fits now."""
        fitting = [each for each in advisor.suggestions(self.config, self.facts, self.device) if each.fits]
        if not fitting:
            return ""
        best = fitting[0]
        return f"Try {advisor.as_flags(best.changes)}: that needs about {_gib(best.need_bytes)} ({best.why})."


def preflight(config: RunConfig, settings: Settings, longest_tokens: int | None = None) -> Preflight | None:
    """The estimate for a run with these settings; None when too little is known of the model."""
    facts = _facts(config)
    if facts is None:
        return None
    settled = _settled(config, settings)
    where = device_now(settings.device)
    return Preflight(settled, facts, where, estimate(settled, facts, where, longest_tokens=longest_tokens))


def checkpointing(config: RunConfig, settings: Settings) -> tuple[bool, str]:
    """Whether "auto" means to recompute activations, and why: only when it does not fit otherwise."""
    undecided = config.training.model_copy(update={"gradient_checkpointing": "off"})
    found = preflight(config.model_copy(update={"training": undecided}), settings)
    if found is None:
        on_gpu = settings.device.type == "cuda"
        return on_gpu, "saves GPU memory" if on_gpu else "on a CPU time is scarcer than memory"
    stored, free = found.estimate, found.device.free_bytes
    need = stored.high_bytes + stored.paged_bytes
    beside = f"up to {_gib(need)} without it, {_gib(free)} free"
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


def _facts(config: RunConfig) -> ModelFacts | None:
    try:
        return describe(config.model.id, config.model.revision)
    except QloraError:
        return None  # the loader says what is wrong with the model


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


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.2f} GiB"
