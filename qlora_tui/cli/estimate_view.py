"""An estimate as text of 80 columns, or as JSON."""

import sys
import textwrap
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from qlora_tui.cli import estimate_work
from qlora_tui.cli.output import write_json, write_line
from qlora_tui.cli.output import write_table as write_rows
from qlora_tui.forecast.outlook import Question
from qlora_tui.memory import advisor, history
from qlora_tui.memory.estimate import Estimate, Verdict, estimate, verdict
from qlora_tui.memory.largest import Quantity, largest, limit
from qlora_tui.memory.phases import PHASE_LABELS
from qlora_tui.memory.savings import Saving, savings
from qlora_tui.memory.table import table
from qlora_tui.memory.tensors import NAMES, explained
from qlora_tui.memory.terms import Term
from qlora_tui.terminal import narrate
from qlora_tui.units import memory

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig
    from qlora_tui.memory.device import Device
    from qlora_tui.models.facts import ModelFacts

GIB = 1 << 30
_WIDTH = 80
_LABEL = 32
_EIGHTHS = " ▏▎▍▌▋▊▉"
_STEP_PHASES = {
    "forward": "the forward pass",
    "loss": "the loss",
    "backward": "the backward pass",
    "step": "the optimizer's step",
}
_QUANTITIES: dict[str, tuple[Quantity, str, str]] = {
    "batch": ("batch", "training.micro_batch_size", "4,096 rows"),
    "length": ("length", "training.max_length_tokens", "the model's context"),
    "rank": ("rank", "adapter.rank", "the model's hidden size"),
}
"""What `--fit` takes: the quantity, its setting, and what it ends at when more would fit."""


def write(
    config: "RunConfig",
    facts: "ModelFacts",
    device: "Device",
    longest: int | None,
    *,
    here: bool,
    explain: bool,
    as_json: bool,
) -> Verdict:
    """Write the breakdown and the forecast to stdout, notes to stderr. Returns the verdict, with what would help.

    `here`: whether the device is part of this machine.
    """
    found = estimate(config, facts, device, longest_tokens=longest, replay=True)
    decided = _decided(found)
    advice = advisor.suggestions(config, facts, found, longest_tokens=longest, replay=True)
    saved = savings(config, facts, device, longest_tokens=longest)
    seen, basis = estimate_work.look(Question(config, device, here, found.checkpointing), facts)
    if as_json:
        extra = {"suggestions": [advisor.as_json(each) for each in advice], "savings": [asdict(each) for each in saved]}
        write_json(as_plain(found, facts, decided) | estimate_work.as_json(seen, basis) | extra)
    else:
        _write_heading(found, facts, decided)
        estimate_work.write(seen, basis)
        _write_terms(found)
        if explain:
            _write_formulas(explained(found, config, facts), on_gpu=device.kind == "cuda")
        _write_savings(saved)
        _write_advice(advice)
    for sentence in (*found.warnings, *found.reasons, history.remark(device.kind)):
        if sentence:
            narrate(f"note: {sentence}")
    return replace(decided, hint=_hint(advice, facts))


def _decided(found: Estimate) -> Verdict:
    """The verdict; of several cards, it says whose it is."""
    decided = verdict(found, found.device.free_bytes)
    whose = _other_trainer(found.device)
    return replace(decided, reason=f"{decided.reason}. {whose}") if whose else decided


def _other_trainer(device: "Device") -> str:
    if device.count == 1:
        return ""
    one = f"ask about one with --gpu {device.total_bytes / GIB:g}GB"
    return f"That is of each card in another trainer ({device.strategy}): qlora-tui trains on one card; {one}"


def as_plain(found: Estimate, facts: "ModelFacts", decided: Verdict) -> dict[str, Any]:
    """Plain data for programs; every size in bytes."""
    content = asdict(found)
    device = content.pop("device")
    return {
        "model": facts.id,
        "verdict": decided.answer,
        "reason": decided.reason,
        "device": device,
        **content,
        "full_bytes": found.full_bytes,
    }


def _hint(advice: tuple[advisor.Suggestion, ...], facts: "ModelFacts") -> str:
    fitting = next((each for each in advice if each.fits), None)
    if fitting is None:
        return f"No setting makes {facts.id} fit here: take a smaller model or a larger card."
    return f"It fits with {advisor.as_flags(fitting.changes)} ({memory(fitting.need_bytes)}; {fitting.why})."


def _write_heading(found: Estimate, facts: "ModelFacts", decided: Verdict) -> None:
    device = found.device
    cards = f"{device.count} x {device.name} ({device.strategy})" if device.count > 1 else device.name
    write_line(f"{facts.id} on {cards}, batch of {found.rows:,} x {found.row_tokens:,} tokens")
    write_line(textwrap.fill(f"{decided.answer}: {decided.reason}", _WIDTH))
    low, high = found.low_bytes + found.paged_bytes, found.high_bytes + found.paged_bytes
    when = "under memory pressure" if device.kind == "cpu" else "when paged"
    paged = f", {memory(found.need_bytes)} {when}" if found.paged_bytes else ""
    write_line(f"{memory(low)} to {memory(high)}{paged}, from a {found.source}")
    write_line()


def _write_terms(found: Estimate) -> None:
    whole = max(found.full_bytes, 1)
    for term in found.terms:
        write_line(_bar_line(term, whole))
    write_line(f"{'total':{_LABEL}}{memory(found.full_bytes):>10}")
    if found.paged_bytes:
        write_line("* can be paged to CPU memory")
    write_line()
    _write_phases(found)


def _bar_line(term: Term, whole: int) -> str:
    share = term.bytes / whole
    label = f"{term.label} *" if term.paged else term.label
    line = f"{label[: _LABEL - 1]:{_LABEL}}{memory(term.bytes):>10} {share:>4.0%} {bar(share, _WIDTH - _LABEL - 17)}"
    return line.rstrip()


def bar(share: float, width: int) -> str:
    """A bar of at most `width` columns, in eighths of a column where the output can show them."""
    eighths = round(min(max(share, 0.0), 1.0) * width * 8)
    if not (sys.stdout.encoding or "").lower().startswith("utf"):
        return "#" * round(eighths / 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _write_phases(found: Estimate) -> None:
    for phase, size in found.phases.items():
        mark = "  <- the peak" if phase == found.peak_phase else ""
        mark += f", in {_STEP_PHASES[found.step_phase]}" if mark and phase in ("first_step", "steady") else ""
        write_line(f"{PHASE_LABELS[phase]:{_LABEL}}{memory(size):>10}{mark}")
    checkpointing = "on" if found.checkpointing else "off"
    write_line(f"{'gradient checkpointing':{_LABEL}}{checkpointing:>10}")
    if len(found.per_card) > 1:
        write_line(_wrapped("each card: " + ", ".join(memory(size) for size in found.per_card)))


def _write_formulas(terms: tuple[Term, ...], *, on_gpu: bool) -> None:
    for term in terms:
        write_line()
        write_line(f"{term.label} = {term.bytes:,} bytes")
        write_line(_wrapped(term.formula))
        for name, value in term.numbers.items():
            meaning = f" ({NAMES[name]})" if name in NAMES else ""
            write_line(
                f"    {name}{meaning} = {value:,}" if isinstance(value, int) else f"    {name}{meaning} = {value}"
            )
    if on_gpu:
        write_line()
        write_line("Bytes; the allocator rounds each tensor up to 512 of them.")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _write_savings(saved: tuple[Saving, ...]) -> None:
    write_line()
    for each in saved:
        verb = "costs" if each.saves_bytes < 0 else "saves" if each.in_use else "would save"
        write_line(f"{each.name:{_LABEL}}{verb} {memory(abs(each.saves_bytes))}")


def _write_advice(advice: tuple[advisor.Suggestion, ...]) -> None:
    if not advice:
        return
    write_line()
    for each in advice:
        state = "fits with" if each.fits else "not enough:"
        write_line(f"{state} {advisor.as_flags(each.changes)}")
        write_line(f"    needs {memory(each.need_bytes)}; {each.why}")


def write_fit(
    config: "RunConfig", facts: "ModelFacts", device: "Device", quantity: str, longest: int | None, *, as_json: bool
) -> Verdict:
    """Write the largest value that fits to stdout."""
    what, key, end = _QUANTITIES[quantity]
    value = largest(config, facts, device, what, longest_tokens=longest, replay=True)
    if as_json:
        write_json({"model": facts.id, "device": device.name, "setting": key, "largest": value})
    else:
        write_line(f"{key}={value}" if value else f"{key}: nothing fits")
    if value == limit(facts, what):
        narrate(f"note: the search ends at {end}; more may fit")
    if whose := _other_trainer(device):
        narrate(f"note: {whose}")
    if value:
        return Verdict("fits", f"up to {key} = {value}")
    now = estimate(config, facts, device, longest_tokens=longest, replay=True)
    advice = advisor.suggestions(config, facts, now, longest_tokens=longest, replay=True)
    return Verdict("does not fit", f"whatever {key} is", hint=_hint(advice, facts))


def write_table(config: "RunConfig", facts: "ModelFacts", longest: int | None, *, as_json: bool) -> None:
    """Write what cards of the usual sizes can do."""
    rows = table(config, facts, longest_tokens=longest, told=lambda size_gb: narrate(f"{size_gb:g} GB ..."))
    if as_json:
        write_json(
            {
                "model": facts.id,
                "cards": [
                    {
                        "card_gb": row.size_gb,
                        "verdict": row.verdict.answer,
                        "need_bytes": row.estimate.need_bytes,
                        "gradient_checkpointing": row.estimate.checkpointing,
                        "batch": row.batch,
                        "length_tokens": row.length_tokens,
                        "rank": row.rank,
                    }
                    for row in rows
                ],
            }
        )
        return
    columns = ["card", "verdict", "need", "checkpointing", "batch", "length", "rank"]
    cells = [
        [
            f"{row.size_gb:g} GB",
            row.verdict.answer,
            memory(row.estimate.need_bytes),
            "on" if row.estimate.checkpointing else "off",
            *(f"{value:,}" if value else "-" for value in (row.batch, row.length_tokens, row.rank)),
        ]
        for row in rows
    ]
    write_rows(columns, cells)
    narrate("batch (rows), length (tokens), rank: the largest that fits, all else as configured; -: none does")
