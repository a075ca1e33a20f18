"""What one card needs in each phase of a run, the allocator's fragmentation included, and by what that may be off."""

from collections.abc import Mapping
from dataclasses import dataclass

from qlora_tui.memory import cards
from qlora_tui.memory.phases import PHASES, UNCERTAIN, Phase, Run
from qlora_tui.memory.terms import Term, total

_CONTEXT_DOUBT_BYTES = 150 << 20
_HOST_DOUBT_BYTES = 96 << 20
"""Uncertainty of the CPU memory of a process in addition to its tensors, once its imports are known."""

_REPLAY_TOLERANCE_BYTES = 16 << 20
"""By so much the smallest capacity of an estimate may be above the true one."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Of one card. What can be paged is in `terms` and `full` alone."""

    run: Run
    replayed: bool
    """Whether a replay of the allocator told the need of the training steps."""

    terms: Mapping[Phase, list[Term]]
    bytes: Mapping[Phase, int]
    """What must be free in each phase."""

    @property
    def most_bytes(self) -> int:
        return max(self.bytes.values())

    @property
    def full_bytes(self) -> Mapping[Phase, int]:
        """What each phase needs when nothing is paged."""
        return {
            name: self.bytes[name] + sum(term.bytes for term in terms if term.paged)
            for name, terms in self.terms.items()
        }

    @property
    def low_bytes(self) -> int:
        """Lowest bound of `most_bytes`."""
        return max(0, *(size - self._below(name) for name, size in self.bytes.items()))

    @property
    def high_bytes(self) -> int:
        """Highest bound of `most_bytes`."""
        return max(size + above(self.run, self.terms[name], size, self.replayed) for name, size in self.bytes.items())

    def breakdown(self, phase: Phase) -> tuple[Term, ...]:
        """The terms of a phase, with the fragmentation that they lack to its need before the context."""
        allocated, need, context = total(self.terms[phase]), self.bytes[phase], self.run.device.context_bytes
        extra = []
        if need > allocated:
            numbers = {"allocated": allocated, "context": context}
            formula = f"(allocated - context) x {self.run.fragmentation.usual}"
            if self.replayed and phase == "steady":
                numbers, formula = {"replayed": need, "allocated": allocated}, "replayed - allocated"
            extra.append(Term("fragmentation", "allocator's fragmentation", need - allocated, formula, numbers))
        last = [term for term in self.terms[phase] if term.key == "context"]
        return (*(term for term in self.terms[phase] if term.key != "context"), *extra, *last)

    def _below(self, phase: Phase) -> int:
        """By how much less than its need a phase may do."""
        need, terms = self.bytes[phase], self.terms[phase]
        if self.replayed:
            return _doubt(self.run, terms) + _share(self.run, need, self.run.replay_uncertainty)
        return _doubt(self.run, terms) + need - total(terms)


def needs(run: Run, *, replay: bool) -> Needs:
    """Those of the card that trains `run`. `replay`: ask a replay of the allocator about the training steps."""
    terms = {name: cards.held(run, name) for name in PHASES}
    sizes = {name: total(held) + _share(run, total(held), run.fragmentation.usual) for name, held in terms.items()}
    replay = replay and replayable(run)
    if replay:
        sizes["steady"] = max(run.capacity_bytes() + run.device.context_bytes, total(terms["steady"]))
        # The replay begins with the first step, so that one cannot need more.
        sizes["first_step"] = min(sizes["first_step"], sizes["steady"])
    return Needs(run, replay, terms, sizes)


def replayable(run: Run) -> bool:
    """Whether the steps are known allocation by allocation."""
    return run.step.program is not None and run.device.strategy == "single"


def survives(run: Run, free_bytes: int) -> bool:
    """Whether a run is sure to fit, by one replay where there can be one."""
    found = needs(run, replay=False)
    if not replayable(run):
        return found.high_bytes <= free_bytes
    for name, size in found.bytes.items():
        in_step = name in ("first_step", "steady")
        if not in_step and size + above(run, found.terms[name], size, replayed=True) > free_bytes:
            return False
    room = free_bytes - above(run, found.terms["steady"], free_bytes, replayed=True)
    return run.survives(room - run.device.context_bytes - _REPLAY_TOLERANCE_BYTES)


def above(run: Run, terms: list[Term], need: int, replayed: bool) -> int:
    """By how much more than `need` a phase may take: the stored bytes are exact, the rest is not."""
    usual = run.fragmentation
    return _doubt(run, terms) + _share(run, need, run.replay_uncertainty if replayed else usual.high - usual.usual)


def _doubt(run: Run, terms: list[Term]) -> int:
    """Of what rests on a model of the libraries, and of the context."""
    held = sum(term.bytes for term in terms if term.key in UNCERTAIN)
    if run.on_gpu:
        return round(held * run.step.band) + (0 if run.device.context_measured else _CONTEXT_DOUBT_BYTES)
    return round(held * run.step.band) + _HOST_DOUBT_BYTES


def _share(run: Run, need: int, share: float) -> int:
    """Of what is in tensors: of all but the context."""
    return round((need - run.device.context_bytes) * share)
