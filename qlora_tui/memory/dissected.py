"""A recorded step taken apart: who makes each tensor and who lets go of it."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from qlora_tui.memory.recorded import Program
from qlora_tui.memory.symbols import SizeSymbols


@dataclass(slots=True)
class Recording:
    """A program taken apart."""

    program: Program
    part: dict[str, list[tuple[str, bool]]] = field(default_factory=dict)
    """Of each event of a block the layer, and whether it is recomputed."""

    born: dict[int, tuple[str, int]] = field(default_factory=dict)
    died: dict[int, tuple[str, int]] = field(default_factory=dict)
    common: dict[tuple[str, bool], list[int]] = field(default_factory=lambda: defaultdict(list))
    """Tensors that are made around the layers, by block and whether it is recomputed."""

    pieces: dict[tuple[str, str, bool], list[int]] = field(default_factory=lambda: defaultdict(list))
    """Places of the events of a layer, by block, layer, and whether it is recomputed."""

    @classmethod
    def of(cls, program: Program) -> "Recording":
        found = cls(program)
        for block, events in program.blocks.items():
            parts = program.parts[block]
            found.part[block] = [(name, again) for name, again, count in parts for _ in range(count)]
            for place, event in enumerate(events):
                name, again = found.part[block][place]
                (found.born if event > 0 else found.died)[abs(event)] = block, place
                if name:
                    found.pieces[block, name, again].append(place)
                elif event > 0:
                    found.common[block, again].append(event)
        return found

    def symbols(self, number: int) -> SizeSymbols:
        return self.program.symbols[self.program.tensors[number - 1][0]]

    def category(self, number: int) -> str:
        return self.program.categories[self.program.tensors[number - 1][1]]

    def survivors(self, block: str, name: str, again: bool) -> list[int]:
        """Tensors of a layer that outlive it."""
        places = set(self.pieces.get((block, name, again), ()))
        events = self.program.blocks[block]
        made = [events[place] for place in sorted(places) if events[place] > 0]
        return [each for each in made if self._outlives(each, block, places)]

    def _outlives(self, number: int, block: str, places: Collection[int]) -> bool:
        end = self.died.get(number)
        return end is None or end[0] != block or end[1] not in places

    def modules(self) -> list[str]:
        """Names of the layers, in the order in which they run forward."""
        return list(dict.fromkeys(name for name, _, _ in self.program.parts["F2"] if name))
