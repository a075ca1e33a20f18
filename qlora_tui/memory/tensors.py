"""The tensors that a recorded step holds at its peak, by category and by the formulas of their sizes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from qlora_tui.config.run import RunConfig
from qlora_tui.memory import step as steps
from qlora_tui.memory.allocator import Trace
from qlora_tui.memory.estimate import Estimate
from qlora_tui.memory.phases import Run
from qlora_tui.memory.program import Program, expand
from qlora_tui.memory.symbols import BLOCK, SizeSymbols, charged_bytes, dimensions
from qlora_tui.memory.terms import Term
from qlora_tui.models.facts import ModelFacts

NAMES: Mapping[str, str] = {
    "n": "tokens of the batch",
    "n1": "predicted tokens",
    "S": "tokens a row",
    "h": "hidden size",
    "f": "MLP width",
    "q": "heads x head size",
    "k": "key-value heads x head size",
    "d": "head size",
    "r": "rank",
    "tok": "tokens scored at once",
    "ch": "words scored at once",
    "V": "vocabulary",
    "H": "heads",
    "K": "key-value heads",
    "B": "rows",
    "S1": "predicted tokens a row",
    "rot": "rotated features of a head",
    "E": "experts",
    "m": "width of an expert",
    "ms": "width of the shared expert",
    "t": "experts for each token",
    "nt": "tokens x experts for each",
}
"""What the dimensions are that say little by their names."""

_ORDER = {name: place for place, name in enumerate(NAMES)}
_SMALL_BYTES = 1 << 16
_TRIES = 64
_PRODUCTS: Mapping[str, tuple[str, str]] = {"n": ("B", "S"), "q": ("H", "d"), "k": ("K", "d")}


def at_peak(program: Program, dims: Mapping[str, int], *, accumulate: bool) -> dict[str, str]:
    """For each category of `StepPeak.by_category` what lives when a step holds most, the most bytes first.

    "37 x 2 x n x h" are 37 tensors of n x h elements of 2 bytes. Arguments as `program.evaluate` has them.
    """
    trace, named = Trace(), _Trace()
    expand(program, dims, trace, accumulate=accumulate)
    levels = list(trace.levels())
    expand(_Program.of(program), _distinct(program, dims), named, accumulate=accumulate)
    live: Counter[_Tensor] = Counter()
    for event in named.events[: levels.index(max(levels)) + 1]:
        live[named.made[abs(event)]] += 1 if event > 0 else -1
    full = dimensions(dims)
    counts: Counter[tuple[str, str]] = Counter()
    sizes: Counter[tuple[str, str]] = Counter()
    for tensor, count in live.items():
        named_as = tensor.category, _formula(tensor.symbols)
        counts[named_as] += count
        sizes[named_as] += count * charged_bytes(tensor.symbols, full)
    found: dict[str, list[str]] = {}
    for (category, formula), size in sizes.most_common():
        if size:
            found.setdefault(category, []).append(f"{counts[category, formula]} x {formula}")
    return {category: " + ".join(parts) for category, parts in found.items()}


def explained(found: Estimate, config: RunConfig, facts: ModelFacts) -> tuple[Term, ...]:
    """The terms of an estimate for one card, those of a recorded step as sums over its tensors."""
    batch = steps.Shape(found.rows, found.row_tokens, config.training.gradient_accumulation_steps > 1)
    run = Run(config, facts, found.device, found.choices, batch, found.checkpointing)
    if run.step.program is None or found.device.strategy != "single":
        return found.terms
    dims = steps.dims(config, facts, batch)
    formulas, full = at_peak(run.step.program, dims, accumulate=batch.accumulate), dimensions(dims)
    return tuple(_explained(term, formulas.get(term.key), full) for term in found.terms)


def _explained(term: Term, formula: str | None, full: Mapping[str, int]) -> Term:
    if formula is None:
        return term
    words = set(formula.split())
    return replace(term, formula=formula, numbers={name: full[name] for name in [*NAMES, *full] if name in words})


def _distinct(program: Program, dims: Mapping[str, int]) -> dict[str, int]:
    """Dimensions with rows a little longer, so that tensors of two categories have one size by their shape alone.

    An unrolled program tells the tensors of a layer apart by their size, and a batch often has as many tokens as the
    model has hidden features.
    """
    kinds = [(program.symbols[symbols], category) for symbols, category in dict.fromkeys(program.tensors)]
    for more in range(_TRIES):
        full = dimensions({**dims, "S": dims["S"] + more})
        sizes: dict[int, tuple[SizeSymbols, int]] = {}
        for symbols, category in kinds:
            size = charged_bytes(symbols, full)
            before = sizes.setdefault(size, (symbols, category))
            if size > _SMALL_BYTES and before[0] != symbols and before[1] != category:
                break
        else:
            break
    return {**dims, "S": dims["S"] + more}


@dataclass(frozen=True, slots=True)
class _Tensor:
    category: str
    symbols: SizeSymbols


class _Size(int):
    """Bytes of a tensor that know which one it is."""

    tensor: _Tensor


class _Program(Program):
    """A program whose sizes say what they are of."""

    __slots__ = ()

    @classmethod
    def of(cls, program: Program) -> "_Program":
        return cls(*(getattr(program, each.name) for each in fields(program)))

    def sizes(self, dims: Mapping[str, int]) -> list[int]:
        found: list[int] = []
        for size, (symbols, category) in zip(Program.sizes(self, dims), self.tensors, strict=True):
            known = _Size(size)
            known.tensor = _Tensor(self.categories[category], self.symbols[symbols])
            found.append(known)
        return found


class _Trace(Trace):
    """A trace that remembers what each of its tensors is."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, _Tensor] = {}

    def alloc(self, size_bytes: int) -> int:
        number = Trace.alloc(self, size_bytes)
        if isinstance(size_bytes, _Size):
            self.made[number] = size_bytes.tensor
        return number


def _formula(symbols: SizeSymbols) -> str:
    item, names = symbols
    words = list(map(str, names))
    for product, parts in _PRODUCTS.items():
        if all(part in words for part in parts):
            for part in parts:
                words.remove(part)
            words.append(product)
    factor = f"4 / {BLOCK}" if isinstance(item, str) else f"{item:g}"
    return " x ".join([factor, *sorted(words, key=lambda word: _ORDER.get(word, len(_ORDER)))])
