"""One dry run of the miniature turned into a memory program."""

from collections.abc import Mapping
from importlib.metadata import version
from itertools import groupby
from math import prod
from typing import Any

from qlora_tui.config.run import RunConfig
from qlora_tui.engine.simulation import miniature
from qlora_tui.engine.simulation.ledger import Birth, Ledger
from qlora_tui.engine.simulation.scratch import always_dequantize
from qlora_tui.engine.simulation.simulate import Simulation, Workload, simulate
from qlora_tui.memory.recorded import Program, ProgramKey
from qlora_tui.memory.symbols import BLOCK, CONSTANTS, SizeSymbols

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "trl", "accelerate")
DROPOUT = 0.05
_KINDS = {"4bit": "nf4", "8bit": "8bit"}
_DTYPES = {"full16": "bfloat16", "full32": "float32"}
_NEGLIGIBLE_BYTES = 1024
"""Sizes up to this may stay numbers, such as one norm for each adapter matrix."""

_COUNTED = 4
"""Sides up to this may stay numbers, such as the pair of a fused projection."""

_BLOCK_OF_PHASE = {"forward": "E", "loss": "H", "loss_backward": "G", "step": "O"}
_CONSTANT_OPERATIONS = ("dequantize_blockwise", "add", "empty_like", "scratch:absmax")
_QUANTIZED_PAIRS = (("q", "h"), ("k", "h"), ("f", "h"), ("qkv", "h"), ("f2", "h"), ("h", "h"), ("ms", "h"))


def versions() -> dict[str, str]:
    """Of the libraries that decide what is allocated."""
    return {library: version(library).partition("+")[0] for library in LIBRARIES}


class UnnamedSizeError(Exception):
    """A size of the miniature that no dimension explains."""


def run_config(family: str, key: ProgramKey) -> RunConfig:
    """The configuration of the miniature's step."""
    dims = miniature.dims(family, single=key.single)
    return RunConfig.model_validate(
        {
            "model": {"id": "miniature", "attention": key.attention, "dtype": _DTYPES.get(key.base, "auto")},
            "quantization": {"kind": _KINDS.get(key.base, "none")},
            "adapter": {
                "kind": "full" if key.base in _DTYPES else "lora",
                "rank": dims["r"],
                "dropout": DROPOUT if key.dropout else 0.0,
            },
            "training": {
                "recipe": key.recipe,
                "micro_batch_size": dims["B"],
                "gradient_accumulation_steps": 1,
                "gradient_checkpointing": "on" if key.checkpointing else "off",
                "optimizer": "paged_adamw_8bit",
            },
        }
    )


def derive(family: str, key: ProgramKey) -> Program:
    """The program of a family. Raises UnnamedSizeError when a size cannot be named."""
    workload = Workload(
        tokens=miniature.dims(family, single=key.single)["S"],
        padded=key.masked,
        by_module=True,
        without_adapters=key.targets == "none",
    )
    with always_dequantize(), miniature.small_tiles():
        found = simulate(run_config(family, key), _model_config(family, key), workload)
    return _program(family, key, found)


def _model_config(family: str, key: ProgramKey) -> Any:
    config = miniature.config(family, windowed=key.windowed)
    if key.base in _DTYPES:
        config.tie_word_embeddings = key.tied
    return config


def _program(family: str, key: ProgramKey, found: Simulation) -> Program:
    ledger = found.ledger
    names = miniature.symbols_of_values(family, single=key.single)
    numbers: dict[int, int] = {}
    tensors: list[tuple[int, int]] = []
    symbols: dict[SizeSymbols, int] = {}
    categories: dict[str, int] = {}
    blocks: dict[str, list[int]] = {}
    parts: dict[str, list[tuple[str, bool]]] = {}
    began = found.step_began
    for event, phase, part in zip(ledger.events[began:], ledger.phases[began:], ledger.modules[began:], strict=True):
        number = abs(event)
        if event > 0:
            birth = ledger.births[number - 1]
            numbers[number] = len(tensors) + 1
            size = symbols.setdefault(symbolic(birth, names), len(symbols))
            tensors.append((size, categories.setdefault(birth.category, len(categories))))
        if number in numbers:
            blocks.setdefault(_block(phase), []).append(numbers[number] if event > 0 else -numbers[number])
            parts.setdefault(_block(phase), []).append(part)
    return Program(
        family=family,
        name=key.name,
        versions=versions(),
        symbols=tuple(symbols),
        categories=tuple(categories),
        tensors=tuple(tensors),
        blocks={name: tuple(events) for name, events in blocks.items()},
        parts={name: tuple((*part, len(list(each))) for part, each in groupby(parts[name])) for name in parts},
        reads=_reads(ledger, numbers, began),
    )


def _reads(ledger: Ledger, numbers: Mapping[int, int], began: int) -> dict[str, tuple[tuple[str, int], ...]]:
    """For each block the linear layers that ran forward in it, with the number of their input in the program."""
    found: dict[str, list[tuple[str, int]]] = {}
    for event, name, number in ledger.reads:
        if event >= began and number in numbers:
            found.setdefault(_block(ledger.phases[event]), []).append((name, numbers[number]))
    return {block: tuple(reads) for block, reads in found.items()}


def _block(phase: str) -> str:
    direction, _, layer = phase.partition(".")
    return f"{direction[0].upper()}{layer}" if layer else _BLOCK_OF_PHASE[phase]


def symbolic(birth: Birth, names: dict[int, str]) -> SizeSymbols:
    """The size of an allocation as a product. Raises UnnamedSizeError."""
    shape = birth.shape
    if any(isinstance(side, str) for side in shape):
        return shape[0], tuple(shape[1:])
    sides = [int(side) for side in shape]
    elements = prod(sides)
    if elements == 0:
        return 0, ()
    if len(sides) == 1 and (pair := _pair(sides[0], names)) and birth.operation.endswith(_CONSTANT_OPERATIONS):
        return CONSTANTS, pair
    item = birth.size_bytes / elements
    if sides and item != int(item):
        raise UnnamedSizeError(f"{birth.operation} of shape {shape} takes {birth.size_bytes} bytes")
    found = tuple(names.get(side, side) for side in sides if side != 1)
    if birth.size_bytes > _NEGLIGIBLE_BYTES and any(isinstance(side, int) and side > _COUNTED for side in found):
        raise UnnamedSizeError(f"{birth.operation} has shape {shape} in phase {birth.phase}")
    return int(item) if item == int(item) else item, found


def _pair(constants: int, names: Mapping[int, str]) -> tuple[str, str] | None:
    """The weight that has so many constants. `names`: of each dimension."""
    dims = {name: value for value, name in names.items()}
    for outputs, inputs in _QUANTIZED_PAIRS:
        if outputs in dims and -(-(dims[outputs] * dims[inputs]) // BLOCK) == constants:
            return outputs, inputs
    return None
