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
from qlora_tui.memory.needs import Needs, needs, survives
from qlora_tui.memory.phases import PHASES, Phase
from qlora_tui.memory.terms import Term, total
from qlora_tui.models.facts import ModelFacts
from qlora_tui.units import memory

Source = Literal["symbolic program", "closed form"]
Answer = Literal["fits", "tight", "fits by paging", "does not fit"]


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
    """What memory is full of at the peak, in the order of a breakdown. They sum up to `full_bytes`."""

    phases: Mapping[Phase, int]
    """Most bytes of each phase of a run in the order of time, nothing of them paged."""

    peak_phase: Phase
    step_phase: str
    """Where in a training step its peak is: forward, loss, backward or step."""

    need_bytes: int
    """What must be free, the context included and what can be paged left out."""

    low_bytes: int
    high_bytes: int
    """Bounds of `need_bytes`."""

    paged_bytes: int
    """So much less than `full_bytes` is needed once optimizer state is paged; on a CPU, once the system gives up pages
    of the mapped weight files."""

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
        """What is used when nothing has to be paged, at the peak."""
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
    longest_eval_tokens: int = 0,
    replay: bool = False,
) -> Estimate:
    """What `config` needs on `device`.

    `longest_tokens`: longest row of the data where it is known, else `training.max_length_tokens` counts.
    `longest_eval_tokens`: the same of evaluation rows; 0: as long as training's.
    `replay`: find the smallest capacity that survives by replaying the allocator (about 0.3 s, only with a program),
    instead of adding the usual share for fragmentation.
    """
    choices = choose(config, device)
    batch = steps.shape(config, longest_tokens)
    evaluated = config.training.micro_batch_size * min(config.training.max_length_tokens, longest_eval_tokens)
    run = phases.Run(config, facts, device, choices, batch, bool(choices.checkpointing), evaluated)
    if choices.checkpointing is not None:
        return _estimate(run, replay)
    found = _estimate(run, replay=False)
    # A replay never finds less than the lowest need: what is far too large needs none.
    if replay and found.low_bytes <= device.free_bytes:
        found = _estimate(run, replay=True)
    if found.high_bytes + found.paged_bytes <= device.free_bytes:
        return found
    return _estimate(replace(run, checkpointing=True), replay)


def fits(config: RunConfig, facts: ModelFacts, device: Device, *, longest_tokens: int | None = None) -> bool:
    """Whether a run is sure to fit: the answer of an estimate with a replay, by one replay instead of a search."""
    choices = choose(config, device)
    batch = steps.shape(config, longest_tokens)
    # Where "auto" decides, what fits at all fits with checkpointing.
    run = phases.Run(config, facts, device, choices, batch, checkpointing=choices.checkpointing is not False)
    return survives(run, device.free_bytes)


def verdict(found: Estimate, free_bytes: int) -> Verdict:
    """Whether it fits into what is free. The bounds decide: "tight" is when free memory lies between them."""
    need, full, free = map(memory, (found.need_bytes, found.full_bytes, free_bytes))
    on_cpu = found.device.kind == "cpu"
    given_up = ", less of the weight files kept in memory" if on_cpu else ", its optimizer paged"
    paged = given_up if found.paged_bytes else ""
    if free_bytes >= found.high_bytes + found.paged_bytes:
        return Verdict("fits", f"needs {full} of {free} free, {memory(free_bytes - found.full_bytes)} to spare")
    if found.paged_bytes and free_bytes >= found.high_bytes:
        return Verdict("fits" if on_cpu else "fits by paging", f"needs {need} of {free} free{paged}")
    if free_bytes >= found.low_bytes:
        bounds = f"{memory(found.low_bytes)} to {memory(found.high_bytes + found.paged_bytes)}"
        return Verdict("tight", f"needs {bounds}, and {free} are free")
    return Verdict("does not fit", f"needs {need}{paged}, but {free} are free")


def _estimate(run: phases.Run, replay: bool) -> Estimate:
    shares = cards.parts(run)
    different = {id(share): share for share in shares}
    by_share = {key: needs(share, replay=replay) for key, share in different.items()}
    fullest = max(by_share.values(), key=lambda card: card.most_bytes)
    return _of_card(fullest, run, tuple(by_share[id(share)].most_bytes for share in shares))


def _of_card(card: Needs, whole: phases.Run, per_card: tuple[int, ...]) -> Estimate:
    run, full, need, device = card.run, card.full_bytes, card.most_bytes, card.run.device
    peak_phase = max(PHASES, key=lambda name: (full[name], name == "steady"))
    allocated = max(map(total, card.terms.values()))
    return Estimate(
        device=device,
        choices=run.choices,
        checkpointing=run.checkpointing,
        rows=run.batch.rows,
        row_tokens=run.batch.row_tokens,
        terms=card.breakdown(peak_phase),
        phases=full,
        peak_phase=peak_phase,
        step_phase=run.step.peak.phase,
        need_bytes=need,
        low_bytes=card.low_bytes,
        high_bytes=card.high_bytes,
        paged_bytes=full[peak_phase] - need,
        peak_bytes=allocated - device.context_bytes if device.kind == "cuda" else full[peak_phase],
        stored_bytes=whole.stored_bytes,
        trainable_parameters=whole.trainable_parameters,
        reasons=reasons.reasons(run, replayed=card.replayed),
        warnings=reasons.warnings(whole),
        source="closed form" if run.step.program is None else "symbolic program",
        per_card=per_card,
    )
