"""What a run will need in memory, before anything is downloaded: every byte by its cause, and when the peak comes.

    estimate = estimate(config, facts, device)      # pure, milliseconds
    verdict(estimate, device.free_bytes)

The stored bytes are exact. The peak of a step comes from a shipped memory program (recorded from a dry run of the real
libraries) where there is one for the family and the recipe, else from closed forms with a wider band.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from qlora_tui.config.run import RunConfig
from qlora_tui.memory import cards, phases, reasons
from qlora_tui.memory import step as steps
from qlora_tui.memory.choices import Choices, choose
from qlora_tui.memory.device import Device
from qlora_tui.memory.phases import PHASES, Phase
from qlora_tui.memory.terms import Term, total
from qlora_tui.models.facts import ModelFacts

Source = Literal["symbolic program", "closed form"]
Answer = Literal["fits", "tight", "fits by paging", "does not fit"]

_CONTEXT_DOUBT_BYTES = 150 << 20
_FRAGMENTATION = {"cuda": 0.021, "cpu": 0.03}
"""Smallest capacity that survives over what is allocated: the median of 54 replays of the caching allocator (their
90th percentile is 6 %); for a host, what malloc keeps."""

_FRAGMENTATION_HIGH = {"cuda": 0.06, "cpu": 0.10}


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes of one card, the fullest one where several share the run."""

    device: Device
    choices: Choices
    checkpointing: bool
    """Whether activations are recomputed; what "auto" comes to on this device."""

    rows: int
    row_tokens: int
    """Size of the longest batch."""

    terms: tuple[Term, ...]
    """What memory is full of at the peak, in the order of a breakdown. They sum up to `need_bytes + paged_bytes`."""

    phases: Mapping[Phase, int]
    """Most bytes of each phase of a run in the order of time, what can be paged left out."""

    peak_phase: Phase
    step_phase: str
    """Where in a training step its peak is: forward, loss, backward or step."""

    need_bytes: int
    """What must be free, the context included and what can be paged left out."""

    low_bytes: int
    high_bytes: int
    """Bounds of `need_bytes`."""

    paged_bytes: int
    """Optimizer state that is on the card only while there is room."""

    peak_bytes: int
    """What a run will report as its measured peak: bytes allocated by PyTorch on a GPU, resident memory on a CPU."""

    stored_bytes: int
    """The base model as loaded, to the byte."""

    trainable_parameters: int
    reasons: tuple[str, ...]
    """What the answer rests on and what could make it wrong, one sentence each."""

    warnings: tuple[str, ...]
    source: Source
    per_card: tuple[int, ...]
    """`need_bytes` of each card."""

    @property
    def full_bytes(self) -> int:
        """What is used when nothing has to be paged."""
        return self.need_bytes + self.paged_bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    answer: Answer
    reason: str
    hint: str = ""
    """What to do about it."""

    @property
    def sure(self) -> bool:
        """Whether it fits even if the estimate is too low."""
        return self.answer in ("fits", "fits by paging")


def estimate(
    config: RunConfig,
    facts: ModelFacts,
    device: Device,
    *,
    longest_tokens: int | None = None,
    replay: bool = False,
) -> Estimate:
    """What `config` needs on `device`.

    `longest_tokens`: longest row of the data where it is known, else `training.max_length_tokens` counts.
    `replay`: find the smallest capacity that survives by replaying the allocator (about 0.3 s, only with a program),
    instead of adding the usual share for fragmentation.
    """
    choices = choose(config, device)
    if choices.checkpointing is not None:
        return _estimate(config, facts, device, choices, choices.checkpointing, longest_tokens, replay)
    stored = _estimate(config, facts, device, choices, False, longest_tokens, replay)
    if stored.high_bytes + stored.paged_bytes <= device.free_bytes:
        return stored
    return _estimate(config, facts, device, choices, True, longest_tokens, replay)


def verdict(found: Estimate, free_bytes: int) -> Verdict:
    """Whether it fits into what is free. The bounds decide: "tight" is when free memory lies between them."""
    need, paged = _gib(found.need_bytes), _gib(found.paged_bytes)
    free = _gib(free_bytes)
    margin = f"{_gib(abs(free_bytes - found.full_bytes))} to spare"
    if free_bytes >= found.high_bytes + found.paged_bytes:
        return Verdict("fits", f"needs {_gib(found.full_bytes)} of {free} free, {margin}")
    if found.paged_bytes and free_bytes >= found.high_bytes:
        return Verdict(
            "fits by paging", f"needs {need} of {free} free; some of the {paged} of optimizer state leaves the card"
        )
    if free_bytes >= found.low_bytes:
        bounds = f"{_gib(found.low_bytes)} to {_gib(found.high_bytes + found.paged_bytes)}"
        return Verdict("tight", f"needs {bounds}, and {free} are free")
    return Verdict("does not fit", f"needs {need}, but {free} are free")


def _estimate(
    config: RunConfig,
    facts: ModelFacts,
    device: Device,
    choices: Choices,
    checkpointing: bool,
    longest_tokens: int | None,
    replay: bool,
) -> Estimate:
    batch = steps.shape(config, longest_tokens)
    run = phases.Run(config, facts, device, choices, batch, checkpointing)
    by_phase = {name: cards.fullest(run, name, run.terms(name)) for name in PHASES}
    needs = _needs(run, by_phase, replay)
    paged = {name: sum(term.bytes for term in terms if term.paged) for name, terms in by_phase.items()}
    need = max(needs.values())
    # What is paged fills the card too while there is room, so it counts for when the card is fullest.
    peak_phase = max(PHASES, key=lambda name: (needs[name] + paged[name], name == "steady"))
    terms = _ordered(by_phase[peak_phase], needs[peak_phase], need)
    low, high = _bounds(run, terms, need, replayed=replay and run.step.program is not None)
    allocated = max(map(total, by_phase.values()))
    return Estimate(
        device=device,
        choices=choices,
        checkpointing=checkpointing,
        rows=batch.rows,
        row_tokens=batch.row_tokens,
        terms=terms,
        phases=needs,
        peak_phase=peak_phase,
        step_phase=run.step.peak.phase,
        need_bytes=need,
        low_bytes=low,
        high_bytes=high,
        paged_bytes=paged[peak_phase],
        peak_bytes=allocated - device.context_bytes if device.kind == "cuda" else need,
        stored_bytes=run.stored_bytes,
        trainable_parameters=run.trainable_parameters,
        reasons=reasons.reasons(run, replayed=replay),
        warnings=reasons.warnings(run),
        source="closed form" if run.step.program is None else "symbolic program",
        per_card=cards.needs(run, need),
    )


def _needs(run: phases.Run, by_phase: Mapping[Phase, list[Term]], replay: bool) -> dict[Phase, int]:
    """What must be free in each phase. A replay tells it of the training steps."""
    capacity = None
    if replay and run.step.program is not None and run.device.strategy == "single":
        capacity = run.capacity_bytes()
    needs = {
        name: _with_fragmentation(total(terms), run.device, capacity if name == "steady" else None)
        for name, terms in by_phase.items()
    }
    # The replay begins with the first step, so that one cannot need more.
    return needs if capacity is None else {**needs, "first_step": min(needs["first_step"], needs["steady"])}


def _with_fragmentation(allocated: int, device: Device, capacity: int | None) -> int:
    beyond = device.context_bytes
    if capacity is not None:
        return max(capacity + beyond, allocated)
    return allocated + round((allocated - beyond) * _FRAGMENTATION[device.kind])


def _ordered(terms: list[Term], phase_need: int, need: int) -> tuple[Term, ...]:
    """The terms with what they lack to the need: fragmentation, and what an earlier phase needs more."""
    rest, more = phase_need - total(terms), need - phase_need
    extra = []
    if rest > 0:
        extra.append(Term("fragmentation", "allocator's rounding", rest, "smallest capacity - allocated", {}))
    if more > 0:
        extra.append(Term("earlier_phase", "more before the first step", more, "see the phases", {}))
    context = [term for term in terms if term.key == "context"]
    return (*(term for term in terms if term.key != "context"), *extra, *context)


def _bounds(run: phases.Run, terms: tuple[Term, ...], need: int, *, replayed: bool) -> tuple[int, int]:
    """Lowest and highest need: the stored bytes are exact, the step, the allocator and the context are not."""
    held = sum(term.bytes for term in terms if term.key in phases.UNCERTAIN)
    doubt = round(held * run.step.band)
    context = 0 if run.device.context_measured else _CONTEXT_DOUBT_BYTES
    fragmentation = next((term.bytes for term in terms if term.key == "fragmentation"), 0)
    kind = run.device.kind
    more = 0.0 if replayed else _FRAGMENTATION_HIGH[kind] - _FRAGMENTATION[kind]
    high = need + doubt + context + round((need - run.device.context_bytes) * more)
    low = need - doubt - context - (0 if replayed else fragmentation)
    return max(low, 0), high


def without_context(found: Estimate, measured_context_bytes: int) -> Device:
    """The estimate's device with the context that was measured on it."""
    return replace(found.device, context_bytes=measured_context_bytes, context_measured=True)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.2f} GiB"
