"""What each memory-saving device saves in a run, or would."""

from dataclasses import dataclass

from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError
from qlora_tui.memory.device import Device
from qlora_tui.memory.estimate import estimate
from qlora_tui.models.facts import ModelFacts


@dataclass(frozen=True, slots=True)
class Saving:
    """What one device saves, and what the run would need without it."""

    name: str
    saves_bytes: int
    without_bytes: int
    in_use: bool


def savings(
    config: RunConfig, facts: ModelFacts, device: Device, *, longest_tokens: int | None = None
) -> tuple[Saving, ...]:
    """What NF4, double quantization, paging and checkpointing save in this run, or would."""

    def need(*changes: str) -> int | None:
        try:
            other = edited(config, changes)
        except ConfigError:
            return None
        found = estimate(other, facts, device, longest_tokens=longest_tokens)
        return found.full_bytes

    now = estimate(config, facts, device, longest_tokens=longest_tokens)
    pairs = {
        "4-bit weights": (config.quantization.is_four_bit, ("quantization.kind=none",), ("quantization.kind=nf4",)),
        "double quantization": (
            config.quantization.double_quantization and config.quantization.is_four_bit,
            ("quantization.double_quantization=false",),
            ("quantization.double_quantization=true",),
        ),
        "gradient checkpointing": (
            now.checkpointing,
            ("training.gradient_checkpointing=off",),
            ("training.gradient_checkpointing=on",),
        ),
    }
    found = []
    for name, (in_use, off, on) in pairs.items():
        without, using = (need(*off), now.full_bytes) if in_use else (now.full_bytes, need(*on))
        if without is not None and using is not None:
            found.append(Saving(name, without - using, without, in_use))
    if now.paged_bytes:
        found.append(Saving("paging the optimizer", now.paged_bytes, now.full_bytes, True))
    return tuple(found)
