"""Shipped memory programs: the peak of one training step of a real model, and its allocations one by one.

A program was recorded from a dry run of a miniature (recorded.py) with the library versions it names. With the
dimensions of a real model it gives that model's step.
"""

import json
import lzma
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from qlora_tui.memory import composed
from qlora_tui.memory.allocator import Trace
from qlora_tui.memory.expansion import Expansion
from qlora_tui.memory.recorded import GRADIENTS, Program, ProgramKey, from_json, sequence
from qlora_tui.memory.symbols import dimensions

__all__ = ["PROGRAMS", "Program", "ProgramKey", "StepPeak", "evaluate", "expand", "find", "gradient_bytes", "named"]

PROGRAMS = Path(__file__).parent / "programs"

_ALIKE = {"mistral": "llama", "gemma3": "gemma3_text"}
"""Families whose layers allocate exactly as those of another one."""

UNGROUPED = "_ungrouped"
_TELLS_GROUPS_APART = frozenset({"phi3", "stablelm", "phi", "gpt_neox", "gpt2", "opt", "bloom"})
"""Families that allocate otherwise when every head has keys and values of its own, or were recorded in that form alone.
Their programs bear the family's name with the suffix."""

TAKES_TURNS: Mapping[str, int] = {"cohere2": 4, "smollm3": 4}
"""Families in which one of so many layers rotates no positions, and so is of another kind whatever the row."""

WITHOUT_SDPA = frozenset({"bloom", "gemma2", "gpt_oss"})
"""Families for which transformers has no scaled-dot-product attention: it takes the eager one in its place."""

FUSED_PROJECTION = frozenset({"phi3", "gpt_neox"})
"""Families in which one matrix makes queries, keys and values."""

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


def find(family: str, key: ProgramKey, *, grouped: bool = True, wanted: frozenset[str] | None = None) -> Program | None:
    """The program of a `model_type`, None when none is shipped. `grouped`: several heads share keys and values.

    `wanted`: last names of the adapted linear layers, where they are not all that there are.
    """
    eager = key.attention == "eager" or family in WITHOUT_SDPA
    key = replace(key, single=key.single and eager and family in FUSED_PROJECTION)
    if not grouped and family in _TELLS_GROUPS_APART:
        family += UNGROUPED
    if eager:
        key = replace(key, attention="eager", masked=False, windowed=False)  # Eager attention always builds its masks.
    family = _ALIKE.get(family, family)
    return named(family, key.name) if wanted is None else _composed(family, key, wanted)


@cache
def _composed(family: str, key: ProgramKey, wanted: frozenset[str]) -> Program | None:
    """The program of some linear layers. None where no recordings of all and of none are shipped, or they disagree."""
    without = replace(key, targets="none", dropout=False)
    every, none = named(family, key.name), named(family, without.name)
    unsaved = None if key.checkpointing else named(family, replace(without, checkpointing=True).name)
    if every is None or none is None or not (every.parts and none.parts and wanted):
        return None
    there = frozenset(composed.modules(every))
    if wanted == there:
        return every
    try:
        return composed.compose(every, none, wanted, unsaved) if wanted < there else None
    except composed.CompositionError:
        return None


@cache
def named(family: str, name: str) -> Program | None:
    """The program of that name in a family's archive, as `Program.family` and `Program.name` say."""
    text = _archive(family).get(name)
    return from_json(json.loads(text)) if text is not None else None


@lru_cache(2)
def _archive(family: str) -> Mapping[str, str]:
    return texts(family)


def texts(family: str) -> Mapping[str, str]:
    """The JSON text of each program in a family's archive, by name."""
    path = PROGRAMS / f"{family}.xz"
    if not path.is_file():
        return {}
    lines = lzma.decompress(path.read_bytes()).decode().splitlines()
    return dict(line.split("\t", 1) for line in lines)


def gradient_bytes(program: Program, dims: Mapping[str, int]) -> int:
    """Charged bytes of all adapter gradients. `dims` as in `evaluate`."""
    full = dimensions(dims)
    sizes, times = program.sizes(full), _times(full)
    owners = program.owners
    return sum(sizes[n - 1] * times[owners[n]] for n in program.gradients if n in owners)


def evaluate(
    program: Program, dims: Mapping[str, int], *, accumulate: bool = False, optimizer_step_bytes: int = 0
) -> StepPeak:
    """The peak of one step above the stored bytes.

    `dims`: what `symbols.dimensions` takes, with at least 6 layers.
    `accumulate`: several micro-batches a step, so that gradients live through the forward pass.
    `optimizer_step_bytes`: what the optimizer holds only while it steps, such as foreach AdamW's copy of all adapters.
    """
    full, base = dimensions(dims), 0
    if accumulate:
        base, program = gradient_bytes(program, dims), program.accumulating()
    blocks = _Sized(program, full)
    level, peak, by_phase = base, -1, dict[str, int]()
    done, where, layer = Counter[str](), "", None
    before_peak = Counter[str]()
    for name, number in sequence(full["L"], full["every"]):
        change, highest = blocks.extent(name)
        phase, reached = _PHASES[name[0]], level + highest
        by_phase[phase] = max(by_phase.get(phase, 0), reached)
        if reached > peak:
            peak, where, layer, before_peak = reached, name, number, done.copy()
        level += change
        done[name] += 1
    by_category = blocks.composition(before_peak, where)
    if accumulate:
        by_category[GRADIENTS] = by_category.get(GRADIENTS, 0) + base
    if level + optimizer_step_bytes > by_phase["step"]:
        by_phase["step"] = level + optimizer_step_bytes
        if by_phase["step"] > peak:
            peak, where, layer = by_phase["step"], "O", None
            by_category = {GRADIENTS: level, "optimizer": optimizer_step_bytes}
    return StepPeak(
        peak_bytes=peak,
        by_category={name: size for name, size in by_category.items() if size > 0},
        phase=_PHASES[where[0]],
        layer=layer,
        by_phase=by_phase,
    )


def _times(full: Mapping[str, int]) -> Counter[str]:
    """How often each block comes."""
    return Counter(name for name, _ in sequence(full["L"], full["every"]))


class _Sized:
    """The blocks of a program with the sizes of a model."""

    def __init__(self, program: Program, full: Mapping[str, int]) -> None:
        """`full`: what `symbols.dimensions` gave."""
        self._program = program
        self._sizes = program.sizes(full)
        self._times, self._owners = _times(full), program.owners
        self._extents: dict[str, tuple[int, int]] = {}

    def _steps(self, name: str) -> Iterator[tuple[int, int]]:
        """(event, change in bytes). Outside the layers, what the layers of a block own goes all at once."""
        of_layer = name[0] in "FB"
        for event in self._program.blocks.get(name, ()):
            size = self._sizes[abs(event) - 1] * (1 if of_layer else self._times[self._owners[abs(event)]])
            yield event, size if event > 0 else -size

    def extent(self, name: str) -> tuple[int, int]:
        """By how many bytes a block changes the level, and the highest it reaches."""
        if name not in self._extents:
            level = highest = 0
            for _, change in self._steps(name):
                level += change
                highest = max(highest, level)
            self._extents[name] = level, highest
        return self._extents[name]

    def composition(self, done: Mapping[str, int], where: str) -> dict[str, int]:
        """Bytes of each category at the highest point of block `where`, after so many times each block."""
        found: Counter[str] = Counter()
        for name, times in done.items():
            for event, change in self._steps(name):
                found[self._category(event)] += change * times
        level, highest = 0, self.extent(where)[1]
        for event, change in self._steps(where):
            if level == highest:
                break
            level += change
            found[self._category(event)] += change
        return dict(found)

    def _category(self, event: int) -> str:
        return self._program.categories[self._program.tensors[abs(event) - 1][1]]


def expand(program: Program, dims: Mapping[str, int], trace: Trace, *, accumulate: bool = False) -> None:
    """Append one step to a trace that holds what is stored already. Arguments as in `evaluate`."""
    Expansion(program, dimensions(dims), trace).run(accumulate=accumulate)
