"""What each memory-saving device saves in a run, or would."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError
from qlora_tui.memory.changes import PAGED_TWINS
from qlora_tui.memory.device import Device
from qlora_tui.memory.estimate import Estimate, estimate
from qlora_tui.models.facts import ModelFacts

_WEIGHTS = ("packed_weights", "quantization_constants", "other_weights", "dequantization")


@dataclass(frozen=True, slots=True)
class Saving:
    """What one device saves; negative where it costs more than it saves."""

    name: str
    saves_bytes: int
    in_use: bool


def savings(
    config: RunConfig, facts: ModelFacts, device: Device, *, longest_tokens: int | None = None
) -> tuple[Saving, ...]:
    """What 4-bit weights, double quantization, checkpointing and paging save in this run, or would.

    All else stays as it is, checkpointing among it where "auto" decides about that. 4-bit weights are held against
    those of the dtype that is loaded; the weight that they need dequantized is taken off.
    """
    now = estimate(config, facts, device, longest_tokens=longest_tokens)
    settled = edited(config, (_checkpointing(now.checkpointing),))

    def other(change: str) -> Estimate | None:
        try:
            return estimate(edited(settled, (change,)), facts, device, longest_tokens=longest_tokens)
        except ConfigError:
            return None

    return tuple(_savings(config, now, other))


def _savings(config: RunConfig, now: Estimate, other: Callable[[str], Estimate | None]) -> Iterator[Saving]:
    four_bit, double = config.quantization.is_four_bit, config.quantization.double_quantization
    changed = other(f"quantization.kind={'none' if four_bit else 'nf4'}") if config.adapter.kind == "lora" else None
    if changed is not None:
        yield _between("4-bit weights", _weights(now), _weights(changed), four_bit)
    changed = other(f"quantization.double_quantization={str(not double).lower()}") if four_bit else None
    if changed is not None:
        yield _between("double quantization", now.full_bytes, changed.full_bytes, double)
    changed = other(_checkpointing(not now.checkpointing))
    if changed is not None:
        yield _between("gradient checkpointing", now.full_bytes, changed.full_bytes, now.checkpointing)
    if now.paged_bytes and now.choices.on_gpu:
        yield Saving("paging the optimizer", now.paged_bytes, in_use=True)
    elif now.choices.on_gpu and now.choices.optimizer in PAGED_TWINS:
        changed = other(f"training.optimizer={PAGED_TWINS[now.choices.optimizer]}")
        if changed is not None:
            yield _between("paging the optimizer", now.need_bytes, changed.need_bytes, in_use=False)


def _between(name: str, now_bytes: int, other_bytes: int, in_use: bool) -> Saving:
    return Saving(name, other_bytes - now_bytes if in_use else now_bytes - other_bytes, in_use)


def _weights(found: Estimate) -> int:
    return sum(term.bytes for term in found.terms if term.key in _WEIGHTS)


def _checkpointing(on: bool) -> str:
    return f"training.gradient_checkpointing={'on' if on else 'off'}"
