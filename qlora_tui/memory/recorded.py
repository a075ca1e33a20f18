"""A recorded training step of a family of models: its format, and how it is unrolled.

The record is of a six-layer miniature whose dimensions all differ, so that the shape of every tensor names its
dimensions. It is cut at the layers' borders into blocks; those of a typical layer are repeated for the layers the
miniature lacks:

    E | F0 F1 [F2]*(L-5) F3 F4 F5 | H | G | B5 B4 [B3]*(L-5) B2 B1 B0 | O

Where layers of two kinds take turns, such as those with a sliding window and those without, F2 and B2 are typical of
the first kind and F3 and B3 of the second:

    E | F0 F1 [F2 or F3]*(L-4) F4 F5 | H | G | B5 B4 [B3 or B2]*(L-4) B1 B0 | O

E embedding, F forward of a layer, H loss, G gradient of the loss, B backward of a layer, O clipping before the
optimizer's step.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from qlora_tui.memory.symbols import SizeSymbols, charged_bytes

FORMAT = 3
MINIATURE_LAYERS = 6
BLOCKS = ("E", "F0", "F1", "F2", "F3", "F4", "F5", "H", "G", "B5", "B4", "B3", "B2", "B1", "B0", "O")
GRADIENTS = "gradients"

Recipe = Literal["lean", "original"]
Base = Literal["4bit", "8bit", "16bit", "full16", "full32"]
"""How the weights of linear layers are stored; "full": all weights are trained, stored with 16 or 32 bits."""


@dataclass(frozen=True, slots=True)
class ProgramKey:
    """Which program: the switches that change what is allocated, not the sizes."""

    recipe: Recipe = "lean"
    checkpointing: bool = True
    dropout: bool = False
    """Whether adapter.dropout is above 0."""

    attention: Literal["sdpa", "eager"] = "sdpa"
    masked: bool = False
    """Whether attention gets a mask in every layer: rows are padded or packed, or all layers have a sliding window."""

    windowed: bool = False
    """Whether it gets one in the layers with a sliding window alone, which others follow."""

    single: bool = False
    """Whether the batch is one row. Eager attention of a fused projection then keeps all of it alive, for its values
    are a part of it; of several rows it keeps a copy of them alone."""

    targets: Literal["all-linear", "none"] = "all-linear"
    """Which linear layers have an adapter. What a layer does without any is recorded to be put in its place."""

    base: Base = "4bit"
    tied: bool = False
    """Whether the head is the embedding. Recorded where both are trained."""

    @property
    def name(self) -> str:
        """What the program is called among its family's."""
        return ".".join(
            (
                self.recipe,
                "checkpointing" if self.checkpointing else "stored",
                "dropout" if self.dropout else "plain",
                self.attention
                + ("-masked" if self.masked else "-windowed" if self.windowed else "")
                + ("-single" if self.single else ""),
                self.targets,
                self.base + ("-tied" if self.tied else ""),
            )
        )


Part = tuple[str, bool, int]
"""Name of an adapted linear layer, or "" for what is around them; whether it is recomputed; how many events."""


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
    parts: Mapping[str, tuple[Part, ...]] = field(default_factory=dict)
    """Who makes the events of a block, in their order."""

    reads: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """For each block the linear layers that run forward in it, with the number of their input."""

    @property
    def gradients(self) -> set[int]:
        """Numbers of the tensors that are gradients of the adapter."""
        return {n for n, (_, category) in enumerate(self.tensors, 1) if self.categories[category] == GRADIENTS}

    def accumulating(self) -> "Program":
        """The program of a micro-batch after the first: gradients exist already, new ones are added to them."""
        waiting = self._waiting_gradients
        added = self.gradients - waiting
        blocks = {name: tuple(_added(events, added)) for name, events in self.blocks.items()}
        return replace(self, blocks=blocks | {"B0": (*blocks["B0"], *(-number for number in sorted(waiting)))})

    @property
    def _waiting_gradients(self) -> set[int]:
        """Those that autograd holds to the end of the backward pass: the tied embedding's share from the head."""
        if not self.name.endswith("-tied"):
            return set()
        made = {n for n in self.blocks["G"] if n in self.gradients}
        return {n for n in made if "V" in self.symbols[self.tensors[n - 1][0]][1]}

    @property
    def owners(self) -> dict[int, str]:
        """The block that allocates each tensor."""
        return {event: name for name, events in self.blocks.items() for event in events if event > 0}

    def sizes(self, dims: Mapping[str, int]) -> list[int]:
        """Charged bytes of each tensor for what `symbols.dimensions` gave."""
        different = [charged_bytes(symbols, dims) for symbols in self.symbols]
        return [different[size] for size, _ in self.tensors]


def _added(events: Sequence[int], gradients: Collection[int]) -> Iterator[int]:
    """The events of a block where each gradient goes once it is added, which autograd does after the operation that
    made it: when what that one needed is free again."""
    waiting: list[int] = []
    freed = False
    for event in events:
        if event > 0 and freed:
            yield from waiting
            waiting, freed = [], False
        if abs(event) not in gradients:
            freed = freed or (event < 0 and bool(waiting))
            yield event
        elif event > 0:
            waiting.append(-event)
            yield event
    yield from waiting


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
        blocks=_absolute(data["blocks"]),
        parts={
            block: tuple((name, bool(again), count) for name, again, count in parts)
            for block, parts in data["parts"].items()
        },
        reads={block: tuple((name, number) for name, number in reads) for block, reads in data["reads"].items()},
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
        "blocks": _relative(program.blocks),
        "parts": {
            block: [(name, int(again), count) for name, again, count in parts] for block, parts in program.parts.items()
        },
        "reads": program.reads,
    }


def _relative(blocks: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """Events as 0 (the next tensor is made) and n (the tensor made n before goes), by which equal layers read equal.

    They take a quarter of the room in an archive that way. Tensors must be numbered in the order of the blocks.
    """
    made = 0
    found: dict[str, list[int]] = {}
    for name, events in blocks.items():
        found[name] = []
        for event in events:
            made = max(made, event)
            found[name].append(0 if event > 0 else made + event + 1)
    return found


def _absolute(blocks: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    made = 0
    found: dict[str, tuple[int, ...]] = {}
    for name, back in blocks.items():
        events = []
        for distance in back:
            made += not distance
            events.append(distance - made - 1 if distance else made)
        found[name] = tuple(events)
    return found


def sequence(layers: int, every: int = 0) -> Iterator[tuple[str, int | None]]:
    """The blocks of a model of `layers` layers in order, each with the number of its layer.

    `every`: each so many layers comes one of the second kind; 0 where all are alike.
    """
    yield "E", None
    for layer in range(layers):
        yield f"F{_recorded_layer(layer, layers, every, 2)}", layer
    yield "H", None
    yield "G", None
    for layer in reversed(range(layers)):
        yield f"B{_recorded_layer(layer, layers, every, 3)}", layer
    yield "O", None


def _recorded_layer(layer: int, layers: int, every: int, typical: int) -> int:
    """The layer of the miniature that stands for one."""
    from_end = layer - layers + MINIATURE_LAYERS
    if not every:
        return layer if layer < typical else max(typical, from_end)
    if layer < 2 or from_end >= MINIATURE_LAYERS - 2:
        return layer if layer < 2 else from_end
    return 2 if (layer + 1) % every else 3
