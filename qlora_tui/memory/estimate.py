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
_REPLAY_TOLERANCE_BYTES = 16 << 20
"""By so much the smallest capacity of an estimate may be above the true one."""


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
    batch = steps.shape(config, longest_tokens)
    stored = phases.Run(config, facts, device, choices, batch, checkpointing=bool(choices.checkpointing))
    found = _estimate(stored, replay)
    if choices.checkpointing is None and found.high_bytes + found.paged_bytes > device.free_bytes:
        return _estimate(replace(stored, checkpointing=True), replay)
    return found


def fits(config: RunConfig, facts: ModelFacts, device: Device, *, longest_tokens: int | None = None) -> bool:
    """Whether a run is sure to fit: the answer of an estimate with a replay, by one replay instead of a search."""
    choices = choose(config, device)
    batch = steps.shape(config, longest_tokens)
    # Where "auto" decides, what fits at all fits with checkpointing.
    run = phases.Run(config, facts, device, choices, batch, checkpointing=choices.checkpointing is not False)
    found = _estimate(run, replay=False)
    if not _replayable(run):
        return found.high_bytes <= device.free_bytes
    doubt = _bounds(run, found.terms, device.free_bytes, replayed=True)[1] - device.free_bytes + _REPLAY_TOLERANCE_BYTES
    others = max(size for phase, size in found.phases.items() if phase not in ("first_step", "steady"))
    room = device.free_bytes - doubt
    return others <= room and run.survives(room - device.context_bytes)


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


@dataclass(frozen=True, slots=True)
class _Card:
    """What one card holds and needs in each phase."""

    run: phases.Run
    terms: Mapping[Phase, list[Term]]
    needs: Mapping[Phase, int]

    @property
    def need(self) -> int:
        return max(self.needs.values())

    @property
    def paged(self) -> Mapping[Phase, int]:
        return {name: sum(term.bytes for term in terms if term.paged) for name, terms in self.terms.items()}


def _estimate(run: phases.Run, replay: bool) -> Estimate:
    shares = cards.parts(run)
    different = {id(share): share for share in shares}
    by_share = {key: _card(share, replay) for key, share in different.items()}
    fullest = max(by_share.values(), key=lambda card: card.need)
    return _of_card(fullest, run, tuple(by_share[id(share)].need for share in shares), replay)


def _card(run: phases.Run, replay: bool) -> _Card:
    terms = {name: cards.held(run, name) for name in PHASES}
    return _Card(run, terms, _needs(run, terms, replay))


def _of_card(card: _Card, whole: phases.Run, per_card: tuple[int, ...], replay: bool) -> Estimate:
    run, needs, paged, device = card.run, card.needs, card.paged, card.run.device
    # What is paged fills the card too while there is room, so it counts for when the card is fullest.
    peak_phase = max(PHASES, key=lambda name: (needs[name] + paged[name], name == "steady"))
    replayed = replay and _replayable(run)
    by_replay = replayed and peak_phase == "steady"
    terms = _ordered(run, card.terms[peak_phase], needs[peak_phase], card.need, replayed=by_replay)
    low, high = _bounds(run, terms, card.need, replayed=replayed)
    allocated = max(map(total, card.terms.values()))
    return Estimate(
        device=device,
        choices=run.choices,
        checkpointing=run.checkpointing,
        rows=run.batch.rows,
        row_tokens=run.batch.row_tokens,
        terms=terms,
        phases=needs,
        peak_phase=peak_phase,
        step_phase=run.step.peak.phase,
        need_bytes=card.need,
        low_bytes=low,
        high_bytes=high,
        paged_bytes=paged[peak_phase],
        peak_bytes=allocated - device.context_bytes if device.kind == "cuda" else card.need,
        stored_bytes=whole.stored_bytes,
        trainable_parameters=whole.trainable_parameters,
        reasons=reasons.reasons(run, replayed=replayed),
        warnings=reasons.warnings(whole),
        source="closed form" if run.step.program is None else "symbolic program",
        per_card=per_card,
    )


def _replayable(run: phases.Run) -> bool:
    return run.step.program is not None and run.device.strategy == "single"


def _needs(run: phases.Run, by_phase: Mapping[Phase, list[Term]], replay: bool) -> dict[Phase, int]:
    """What must be free in each phase. A replay tells it of the training steps."""
    capacity = run.capacity_bytes() if replay and _replayable(run) else None
    needs = {
        name: _with_fragmentation(total(terms), run, capacity if name == "steady" else None)
        for name, terms in by_phase.items()
    }
    # The replay begins with the first step, so that one cannot need more.
    return needs if capacity is None else {**needs, "first_step": min(needs["first_step"], needs["steady"])}


def _with_fragmentation(allocated: int, run: phases.Run, capacity: int | None) -> int:
    beyond = run.device.context_bytes
    if capacity is not None:
        return max(capacity + beyond, allocated)
    return allocated + round((allocated - beyond) * run.fragmentation.usual)


def _ordered(run: phases.Run, terms: list[Term], phase_need: int, need: int, *, replayed: bool) -> tuple[Term, ...]:
    """The terms with what they lack to the need: fragmentation, and what an earlier phase needs more."""
    allocated = total(terms)
    rest, more = phase_need - allocated, need - phase_need
    extra = []
    if rest > 0:
        numbers = {"allocated": allocated, "context": run.device.context_bytes}
        formula = f"(allocated - context) x {run.fragmentation.usual}"
        if replayed:
            numbers, formula = {"replayed": phase_need, "allocated": allocated}, "replayed - allocated"
        extra.append(Term("fragmentation", "allocator's fragmentation", rest, formula, numbers))
    if more > 0:
        numbers, formula = {"earlier": need, "this one": phase_need}, "earlier - this one"
        extra.append(Term("earlier_phase", "more in an earlier phase", more, formula, numbers))
    context = [term for term in terms if term.key == "context"]
    return (*(term for term in terms if term.key != "context"), *extra, *context)


def _bounds(run: phases.Run, terms: tuple[Term, ...], need: int, *, replayed: bool) -> tuple[int, int]:
    """Lowest and highest need: the stored bytes are exact, the step, the allocator and the context are not."""
    held = sum(term.bytes for term in terms if term.key in phases.UNCERTAIN)
    doubt = round(held * run.step.band)
    context = 0 if run.device.context_measured else _CONTEXT_DOUBT_BYTES
    in_tensors = need - run.device.context_bytes
    if replayed:
        more = fewer = round(in_tensors * phases.REPLAY_DOUBT)
    else:
        more = round(in_tensors * (run.fragmentation.high - run.fragmentation.usual))
        fewer = next((term.bytes for term in terms if term.key == "fragmentation"), 0)
    low, high = need - doubt - context - fewer, need + doubt + context + more
    return max(low, 0), high


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 30):.2f} GiB"
