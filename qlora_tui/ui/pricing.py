"""Memory of the draft for display: one estimate as parts of a bar, and the effect of each setting.

Every estimate of the screen is made by `_estimated`, from the same row lengths.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from qlora_tui.config.fields import value
from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import QloraError
from qlora_tui.forecast.outlook import Question
from qlora_tui.forecast.work import Rows
from qlora_tui.hardware import Machine
from qlora_tui.memory import device as devices
from qlora_tui.memory.device import Device
from qlora_tui.memory.estimate import Estimate, Verdict, estimate, verdict
from qlora_tui.memory.phases import PHASE_LABELS
from qlora_tui.memory.record import entry
from qlora_tui.memory.stored_estimate import Longest, covers
from qlora_tui.models.facts import ModelFacts
from qlora_tui.units import count, memory, signed_memory

_PARTS = (
    ("weights", "weights", ("packed_weights", "experts", "other_weights")),
    ("tables", "embeddings, head", ("tables",)),
    ("constants", "quantization constants", ("quantization_constants",)),
    ("adapter", "adapter", ("adapter",)),
    ("optimizer", "optimizer", ("optimizer", "optimizer_paged")),
    ("gradients", "gradients", ("gradients", "buckets")),
    ("work", "activations, loss", ()),
    ("context", "context, allocator", ("context", "tokenizer", "mapped", "fragmentation", "cublas")),
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
class Counted:
    """Rows of a configuration's data that were counted, all of them, and their lengths in tokens."""

    config: RunConfig
    full_tokens: int
    """Longest row before truncation."""

    train_tokens: int
    """Longest training row after truncation."""

    eval_tokens: int
    """Longest evaluation row after truncation; 0 if there are none."""

    train_rows: int = 0
    tokens: int = 0
    """Of all training rows, as the model gets them."""

    eval_rows: int = 0

    def rows(self, config: RunConfig) -> Rows | None:
        """The rows of another configuration; None when they are others or are cut elsewhere."""
        same_limit = config.training.max_length_tokens == self.config.training.max_length_tokens
        if not self.train_rows or not same_limit or self.longest(config) is None:
            return None
        return Rows(self.train_rows, self.tokens / self.train_rows, self.eval_rows, True)

    def longest(self, config: RunConfig) -> Longest | None:
        """Return the longest rows for another configuration; None if its data or tokenizer differs."""
        if (config.data, config.model.id) != (self.config.data, self.config.model.id):
            return None
        limit = config.training.max_length_tokens
        if limit <= self.config.training.max_length_tokens:
            return Longest(min(self.train_tokens, limit), min(self.eval_tokens, limit))
        return Longest(min(self.full_tokens, limit))


@dataclass(frozen=True)
class Price:
    """What one configuration needs on one device."""

    config: RunConfig
    device: Device
    estimate: Estimate
    verdict: Verdict
    parts: tuple[Part, ...]
    counted: Counted | None = None
    """Row lengths of the estimate; None: maximum length."""

    here: bool = True
    """Whether the device is one of this machine; else it is a card that was asked about."""

    replayed: bool = False
    """Whether this is the full estimate as in `qlora-tui estimate`, which a run stores."""

    others: tuple[tuple[Device, Verdict], ...] = ()
    """The machine's further cards."""

    @property
    def covers(self) -> str:
        """Short description of what the estimate covers."""
        found = self.estimate
        counted = self.counted is not None and self.counted.longest(self.config) is not None
        return covers(found.rows, found.row_tokens, self.device.kind, counted=counted)

    @property
    def entry(self) -> dict[str, Any] | None:
        """Entry of plan.json; None while only the quick estimate or that of another card is known."""
        longest = self.counted.longest(self.config) if self.counted is not None else None
        return entry(self.estimate, self.device, longest) if self.replayed and self.here else None

    @property
    def question(self) -> Question:
        """The run whose steps and time are asked for."""
        checkpointing = self.estimate.checkpointing
        return Question(self.config, self.device, self.here, checkpointing, self.counted_rows(self.config))

    def counted_rows(self, config: RunConfig) -> Rows | None:
        """Return the counted rows for another configuration; None where they were not counted."""
        return self.counted.rows(config) if self.counted is not None else None

    @property
    def largest(self) -> str:
        """The term that takes most, in words."""
        term = max(self.estimate.terms, key=lambda one: one.bytes)
        return f"{term.label}, {memory(term.bytes)}"

    @property
    def peak(self) -> str:
        """When memory is fullest."""
        return PHASE_LABELS[self.estimate.peak_phase]


def price(
    config: RunConfig,
    facts: ModelFacts,
    machine: Machine,
    counted: Counted | None = None,
    *,
    card: str = "",
    replay: bool = False,
) -> Price:
    """Price a run on the device that it would train on. Raises EnvironmentProblem when that is not there.

    `card`: another device, as `qlora-tui estimate --gpu` takes it. `counted`: row lengths, used where they are those of
    the configuration's data. `replay`: as `qlora-tui estimate`, in up to a second; else with the typical
    fragmentation, in milliseconds.
    """
    device = device_of(config, machine, card)
    found = _estimated(config, facts, device, counted, replay=replay)
    cards = [] if device.kind == "cpu" or card else [devices.gpu(card) for card in machine.gpus]
    if cards:
        cards.remove(device)
    return Price(
        config=config,
        device=device,
        estimate=found,
        verdict=verdict(found, device.free_bytes),
        parts=tuple(_parts(found)),
        counted=counted,
        here=not card,
        replayed=replay,
        others=tuple((card, verdict(found, card.free_bytes)) for card in cards),
    )


def device_of(config: RunConfig, machine: Machine, card: str = "") -> Device:
    """Return where a run would train, or the `card` that is asked about. Raises UsageError or EnvironmentProblem."""
    return devices.parse(card, machine) if card else devices.automatic(machine, config.model.device)


def _estimated(
    config: RunConfig, facts: ModelFacts, device: Device, counted: Counted | None, *, replay: bool = False
) -> Estimate:
    longest = counted.longest(config) if counted is not None else None
    tokens = (longest.train_tokens, longest.eval_tokens) if longest is not None else (None, 0)
    return estimate(config, facts, device, longest_tokens=tokens[0], longest_eval_tokens=tokens[1], replay=replay)


def badge(config: RunConfig, facts: ModelFacts, device: Device, counted: Counted | None = None) -> str:
    """Return in a few words whether a run with this model fits."""
    found = _estimated(config, facts, device, counted)
    if found.low_bytes * _NEAR[0] <= device.free_bytes <= (found.high_bytes + found.paged_bytes) * _NEAR[1]:
        found = _estimated(config, facts, device, counted, replay=True)
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
        other = _estimated(edited(found.config, [f"{key}={text}"]), facts, found.device, found.counted)
    except QloraError:
        return ""
    return f"{text}: {signed_memory(other.full_bytes - found.estimate.full_bytes)}"


def _parts(found: Estimate) -> Iterator[Part]:
    named = {key for _, _, keys in _PARTS for key in keys}
    for name, label, keys in _PARTS:
        size = sum(term.bytes for term in found.terms if (term.key in keys if keys else term.key not in named))
        if size:
            yield Part(name, label, size)
