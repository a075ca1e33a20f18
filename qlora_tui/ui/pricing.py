"""What the draft costs in memory, for the screen: one estimate as parts of a bar, and what each setting adds to it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from qlora_tui.config.fields import value
from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import EnvironmentProblem, QloraError
from qlora_tui.hardware import Machine
from qlora_tui.memory import device as devices
from qlora_tui.memory.device import Device
from qlora_tui.memory.estimate import Estimate, Verdict, estimate, verdict
from qlora_tui.memory.phases import PHASE_LABELS
from qlora_tui.models.facts import ModelFacts
from qlora_tui.ui.amounts import count, gib, signed_gib

_PARTS = (
    ("weights", "weights", ("packed_weights", "experts", "other_weights")),
    ("tables", "embeddings, head", ("tables",)),
    ("constants", "quantization constants", ("quantization_constants",)),
    ("adapter", "adapter", ("adapter",)),
    ("optimizer", "optimizer", ("optimizer", "optimizer_paged")),
    ("gradients", "gradients", ("gradients", "buckets")),
    ("work", "activations, loss", ()),
    ("context", "context, allocator", ("context", "fragmentation", "cublas")),
)
"""Key, label and terms of each part of the bar; what no other part names is work."""

ALTERNATIVES: Mapping[str, tuple[str, ...]] = {
    "quantization.kind": ("nf4", "8bit", "none"),
    "quantization.double_quantization": ("true", "false"),
    "adapter.dora": ("true", "false"),
    "adapter.dropout": ("0.0", "0.05"),
    "training.recipe": ("lean", "original"),
    "training.gradient_checkpointing": ("on", "off"),
    "training.optimizer": ("paged_adamw_32bit", "paged_adamw_8bit", "adamw_torch"),
    "training.packing": ("true", "false"),
}
"""What is priced beside the present value of a setting."""

_DOUBLED = (
    "adapter.rank", "training.micro_batch_size", "training.max_length_tokens", "training.gradient_accumulation_steps",
)  # fmt: skip
"""Settings that are priced at half and at double their value."""

_NEAR = 0.9, 1.15
"""Shares of the bounds of a need between which a replay could come to another verdict."""


@dataclass(frozen=True)
class Part:
    key: str
    label: str
    bytes: int


@dataclass(frozen=True)
class Price:
    """What one configuration needs on one device."""

    config: RunConfig
    device: Device
    estimate: Estimate
    verdict: Verdict
    parts: tuple[Part, ...]
    others: tuple[tuple[Device, Verdict], ...] = ()
    """The machine's further cards."""

    @property
    def largest(self) -> str:
        """The term that takes most, in words."""
        term = max(self.estimate.terms, key=lambda one: one.bytes)
        return f"{term.label}, {gib(term.bytes)}"

    @property
    def peak(self) -> str:
        """When memory is fullest."""
        return PHASE_LABELS[self.estimate.peak_phase]


def price(
    config: RunConfig,
    facts: ModelFacts,
    machine: Machine,
    longest_tokens: int | None = None,
    *,
    replay: bool = False,
) -> Price:
    """The price on the device that the run would train on. Raises EnvironmentProblem when that is not there.

    `replay`: what `qlora-tui estimate` says, in up to a second; else what is usual, in milliseconds.
    """
    device = devices.automatic(machine, config.model.device)
    found = estimate(config, facts, device, longest_tokens=longest_tokens, replay=replay)
    cards = [] if device.kind == "cpu" else [devices.gpu(card) for card in machine.gpus]
    if cards:
        cards.remove(device)
    return Price(
        config=config,
        device=device,
        estimate=found,
        verdict=verdict(found, device.free_bytes),
        parts=tuple(_parts(found)),
        others=tuple((card, verdict(found, card.free_bytes)) for card in cards),
    )


def badge(config: RunConfig, facts: ModelFacts, machine: Machine) -> str:
    """Whether the draft with this model fits, in a word or two; empty when nobody can say."""
    try:
        device = devices.automatic(machine, config.model.device)
    except EnvironmentProblem:
        return ""
    config = config.model_copy(update={"model": config.model.model_copy(update={"id": facts.id})})
    found = estimate(config, facts, device)
    if found.low_bytes * _NEAR[0] <= device.free_bytes <= (found.high_bytes + found.paged_bytes) * _NEAR[1]:
        found = estimate(config, facts, device, replay=True)
    answer = verdict(found, device.free_bytes).answer
    return {"does not fit": "too big", "fits by paging": "by paging"}.get(answer, answer)


def effects(found: Price, facts: ModelFacts, keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """For each setting that costs memory, what other values of it would change."""
    for key in keys:
        texts = list(_others(found.config, key))
        if texts:
            said = [told for text in texts if (told := _effect(found, facts, key, text))]
            yield key, _present(found, key) + "; ".join(said)


def _present(found: Price, key: str) -> str:
    if key != "adapter.rank":
        return ""
    return f"{count(found.estimate.trainable_parameters)} trained parameters; "


def _others(config: RunConfig, key: str) -> Iterator[str]:
    present = value(config, key)
    if key in _DOUBLED:
        yield from (str(number) for number in (present // 2, present * 2) if number)
    for text in ALTERNATIVES.get(key, ()):
        if text not in (str(present), str(present).lower()):
            yield text


def _effect(found: Price, facts: ModelFacts, key: str, text: str) -> str:
    try:
        other = estimate(edited(found.config, [f"{key}={text}"]), facts, found.device)
    except QloraError:
        return ""
    return f"{text}: {signed_gib(other.full_bytes - found.estimate.full_bytes)}"


def _parts(found: Estimate) -> Iterator[Part]:
    named = {key for _, _, keys in _PARTS for key in keys}
    for name, label, keys in _PARTS:
        size = sum(term.bytes for term in found.terms if (term.key in keys if keys else term.key not in named))
        if size:
            yield Part(name, label, size)
