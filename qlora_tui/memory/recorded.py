"""A recorded training step of a family of models: its format, and how it is unrolled.

The record is of a six-layer miniature whose dimensions all differ, so that the shape of every tensor names its
dimensions. It is cut at the layers' borders into blocks; those of a typical layer are repeated for the layers the
miniature lacks:

    E | F0 F1 [F2]*(L-5) F3 F4 F5 | H | G | B5 B4 [B3]*(L-5) B2 B1 B0 | O

E embedding, F forward of a layer, H loss, G gradient of the loss, B backward of a layer, O clipping before the
optimizer's step.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qlora_tui.memory.symbols import SizeSymbols, charged_bytes

FORMAT = 1
MINIATURE_LAYERS = 6
REPEATED = ("F2", "B3")
"""The typical layer of the forward and of the backward pass."""

BLOCKS = ("E", "F0", "F1", "F2", "F3", "F4", "F5", "H", "G", "B5", "B4", "B3", "B2", "B1", "B0", "O")
GRADIENTS = "gradients"


@dataclass(frozen=True, slots=True)
class ProgramKey:
    """Which program: the switches that change what is allocated, not the sizes."""

    recipe: Literal["lean", "original"] = "lean"
    checkpointing: bool = True
    dropout: bool = False
    """Whether adapter.dropout is above 0."""

    attention: Literal["sdpa", "eager"] = "sdpa"
    masked: bool = False
    """Whether attention gets a mask: padded rows in a batch, or a sliding window shorter than the sequence."""

    loss: Literal["tiled", "full"] = "tiled"
    targets: Literal["all-linear"] = "all-linear"

    @property
    def name(self) -> str:
        """What the program is called among its family's."""
        return ".".join(
            (
                self.recipe,
                "checkpointing" if self.checkpointing else "stored",
                "dropout" if self.dropout else "plain",
                self.attention + ("-masked" if self.masked else ""),
                self.loss,
                self.targets,
            )
        )


@dataclass(frozen=True, slots=True)
class Program:
    """One recorded step. Tensors are numbered from 1; an event is +n (allocated) or -n (freed)."""

    family: str
    name: str
    versions: Mapping[str, str]
    """Library versions the step was recorded with."""

    symbols: tuple[SizeSymbols, ...]
    """The different sizes."""

    categories: tuple[str, ...]
    tensors: tuple[tuple[int, int], ...]
    """For each tensor the index of its size and of its category."""

    blocks: Mapping[str, tuple[int, ...]]

    @property
    def gradients(self) -> set[int]:
        """Numbers of the tensors that are gradients of the adapter."""
        return {n for n, (_, category) in enumerate(self.tensors, 1) if self.categories[category] == GRADIENTS}

    def sizes(self, dims: Mapping[str, int]) -> list[int]:
        """Charged bytes of each tensor for what `symbols.dimensions` gave."""
        different = [charged_bytes(symbols, dims) for symbols in self.symbols]
        return [different[size] for size, _ in self.tensors]


def from_json(data: Mapping[str, Any]) -> Program:
    """A program as `to_json` wrote it. Raises ValueError for another format."""
    if data.get("format") != FORMAT:
        raise ValueError(f"memory program of format {data.get('format')!r}, expected {FORMAT}")
    return Program(
        family=data["family"],
        name=data["name"],
        versions=data["versions"],
        symbols=tuple((item, tuple(names)) for item, names in data["symbols"]),
        categories=tuple(data["categories"]),
        tensors=tuple((size, category) for size, category in data["tensors"]),
        blocks={name: tuple(events) for name, events in data["blocks"].items()},
    )


def to_json(program: Program) -> dict[str, Any]:
    """Plain data for a file."""
    return {
        "format": FORMAT,
        "family": program.family,
        "name": program.name,
        "versions": dict(program.versions),
        "symbols": program.symbols,
        "categories": program.categories,
        "tensors": program.tensors,
        "blocks": program.blocks,
    }


def sequence(layers: int) -> Iterator[tuple[str, int | None]]:
    """The blocks of a model of `layers` layers in order, each with the number of its layer."""
    yield "E", None
    for layer in range(layers):
        yield f"F{layer if layer < 2 else max(2, layer - layers + MINIATURE_LAYERS)}", layer
    yield "H", None
    yield "G", None
    for layer in reversed(range(layers)):
        yield f"B{layer if layer <= 2 else max(3, layer - layers + MINIATURE_LAYERS)}", layer
    yield "O", None
