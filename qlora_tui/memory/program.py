"""Shipped memory programs: the peak of one training step of a real model, and its allocations one by one.

A program was recorded from a dry run of a miniature (recorded.py) with the library versions it names. With the
dimensions of a real model it gives that model's step.
"""

import json
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from qlora_tui.memory.allocator import Trace
from qlora_tui.memory.expansion import Expansion
from qlora_tui.memory.recorded import BLOCKS, GRADIENTS, MINIATURE_LAYERS, REPEATED, Program, ProgramKey, from_json
from qlora_tui.memory.symbols import dimensions

__all__ = ["PROGRAMS", "Program", "ProgramKey", "StepPeak", "evaluate", "expand", "families", "find", "gradient_bytes"]

PROGRAMS = Path(__file__).parent / "programs"

_ALIKE = {"mistral": "llama", "smollm3": "llama", "gemma3": "gemma3_text"}
"""Families whose layers allocate exactly as those of another one."""

_PHASES: Mapping[str, Literal["forward", "loss", "backward", "step"]] = {
    "E": "forward",
    "F": "forward",
    "H": "loss",
    "G": "loss",
    "B": "backward",
    "O": "step",
}

Phase = Literal["forward", "loss", "backward", "step"]


@dataclass(frozen=True, slots=True)
class StepPeak:
    """The most that one step holds at once, beside what is stored all the time."""

    peak_bytes: int
    by_category: Mapping[str, int]
    """Bytes at the peak: "inputs", "activations", "attention", "dequantization", "loss", "gradients", "optimizer"."""

    phase: Phase
    layer: int | None
    """Number of the layer in which the peak comes, None outside the layers."""

    by_phase: Mapping[str, int]
    """Most bytes of each phase."""


def find(family: str, key: ProgramKey) -> Program | None:
    """The program of a `model_type`, None when none is shipped."""
    if key.attention == "eager":
        key = replace(key, masked=False)  # Eager attention always builds its mask.
    return _load(_ALIKE.get(family, family), key.name)


def families() -> list[str]:
    """`model_type`s that have shipped programs."""
    shipped = {path.stem for path in PROGRAMS.glob("*.zip")}
    return sorted(shipped | {name for name, like in _ALIKE.items() if like in shipped})


@cache
def _load(family: str, name: str) -> Program | None:
    path = PROGRAMS / f"{family}.zip"
    if not path.is_file():
        return None
    with zipfile.ZipFile(path) as archive:
        try:
            text = archive.read(f"{name}.json")
        except KeyError:
            return None
    return from_json(json.loads(text))


def accumulating(program: Program) -> Program:
    """The program of a micro-batch after the first: gradients exist already, new ones are added and freed at once."""
    gradient = program.gradients
    blocks: dict[str, tuple[int, ...]] = {}
    for name in BLOCKS:
        events: list[int] = []
        for event in program.blocks.get(name, ()):
            if abs(event) not in gradient:
                events.append(event)
            elif event > 0:
                events += [event, -event]
        blocks[name] = tuple(events)
    return replace(program, blocks=blocks)


def gradient_bytes(program: Program, dims: Mapping[str, int]) -> int:
    """Charged bytes of all adapter gradients. `dims` as in `evaluate`."""
    full = dimensions(dims)
    sizes, per_block = program.sizes(full), _owners(program)
    return sum(sizes[n - 1] * _times(per_block[n], full["L"]) for n in program.gradients if n in per_block)


def evaluate(
    program: Program, dims: Mapping[str, int], *, accumulate: bool = False, optimizer_step_bytes: int = 0
) -> StepPeak:
    """The peak of one step above the stored bytes.

    `dims`: h hidden, f MLP width, L layers (at least 6), H heads, K key-value heads, d head size, V vocabulary, B rows,
    S tokens a row, r LoRA rank; optional dq, 1 (default) with double quantization, 0 without.
    `accumulate`: several micro-batches a step, so that gradients live through the forward pass.
    `optimizer_step_bytes`: what the optimizer holds only while it steps, such as foreach AdamW's copy of all adapters.
    """
    full = dimensions(dims)
    base = 0
    if accumulate:
        base = gradient_bytes(program, dims)
        program = accumulating(program)
    sizes, layers, owners = program.sizes(full), full["L"], _owners(program)
    level, peak, where, times_before = base, -1, "", 0
    by_phase: dict[str, int] = {}
    for name in BLOCKS:
        change, highest = _extent(program, name, sizes, owners, layers)
        times = _times(name, layers)
        for before in {0, times - 1} if times else ():
            reached = level + before * change + highest
            phase = _PHASES[name[0]]
            by_phase[phase] = max(by_phase.get(phase, 0), reached)
            if reached > peak:
                peak, where, times_before = reached, name, before
        level += times * change
        if name == "O" and level + optimizer_step_bytes > by_phase["step"]:
            by_phase["step"] = level + optimizer_step_bytes
    by_category = _composition(program, sizes, owners, layers, where, times_before)
    if accumulate:
        by_category[GRADIENTS] = by_category.get(GRADIENTS, 0) + base
    if by_phase.get("step", 0) > peak:
        peak, where = by_phase["step"], "O"
        by_category = {GRADIENTS: level, "optimizer": optimizer_step_bytes}
    return StepPeak(
        peak_bytes=peak,
        by_category={name: size for name, size in by_category.items() if size > 0},
        phase=_PHASES[where[0]],
        layer=_layer(where, times_before, layers),
        by_phase=by_phase,
    )


def _owners(program: Program) -> dict[int, str]:
    """The block that allocates each tensor."""
    return {event: name for name, events in program.blocks.items() for event in events if event > 0}


def _times(block: str, layers: int) -> int:
    return layers - MINIATURE_LAYERS + 1 if block in REPEATED else 1


def _weight(event: int, block: str, owners: Mapping[int, str], layers: int) -> int:
    """How many tensors an event stands for: outside the layers, what the typical layers own goes all at once."""
    return 1 if _is_layer(block) else _times(owners[abs(event)], layers)


def _is_layer(block: str) -> bool:
    return block[0] in "FB"


def _extent(
    program: Program, name: str, sizes: Sequence[int], owners: Mapping[int, str], layers: int
) -> tuple[int, int]:
    """By how many bytes a block changes the level, and the highest it reaches."""
    level = highest = 0
    for event in program.blocks.get(name, ()):
        size = sizes[abs(event) - 1] * _weight(event, name, owners, layers)
        level += size if event > 0 else -size
        highest = max(highest, level)
    return level, highest


def _composition(
    program: Program, sizes: Sequence[int], owners: Mapping[int, str], layers: int, where: str, times_before: int
) -> dict[str, int]:
    """Bytes of each category at the highest point of block `where`, after `times_before` earlier repeats of it."""
    found: Counter[str] = Counter()

    def add(name: str, events: Sequence[int], times: int) -> None:
        for event in events:
            size = sizes[abs(event) - 1] * _weight(event, name, owners, layers) * times
            found[program.categories[program.tensors[abs(event) - 1][1]]] += size if event > 0 else -size

    for name in BLOCKS:
        events = program.blocks.get(name, ())
        if name != where:
            add(name, events, _times(name, layers))
            continue
        add(name, events, times_before)
        _, highest = _extent(program, name, sizes, owners, layers)
        add(name, _until(highest, events, name, sizes, owners, layers), 1)
        break
    return dict(found)


def _until(
    highest: int, events: Sequence[int], name: str, sizes: Sequence[int], owners: Mapping[int, str], layers: int
) -> Sequence[int]:
    level = 0
    if highest <= 0:
        return ()
    for done, event in enumerate(events, 1):
        size = sizes[abs(event) - 1] * _weight(event, name, owners, layers)
        level += size if event > 0 else -size
        if level == highest:
            return events[:done]
    return events


def _layer(block: str, times_before: int, layers: int) -> int | None:
    if not _is_layer(block):
        return None
    number = int(block[1:])
    if block in REPEATED:
        return number + times_before if block[0] == "F" else layers - MINIATURE_LAYERS + number - times_before
    after_repeated = number > 2 if block[0] == "F" else number > 3
    return layers - MINIATURE_LAYERS + number if after_repeated else number


def expand(program: Program, dims: Mapping[str, int], trace: Trace, *, accumulate: bool = False) -> None:
    """Append one step to a trace that holds what is stored already. Arguments as in `evaluate`."""
    Expansion(program, dimensions(dims), trace).run(accumulate=accumulate)
