"""A program unrolled over all layers of a real model, as allocations and frees for the allocator."""

from collections import defaultdict, deque
from collections.abc import Mapping

from qlora_tui.memory.allocator import Trace
from qlora_tui.memory.recorded import MINIATURE_LAYERS, REPEATED, Program, sequence

_Place = tuple[str, int | None, int]
"""Where a tensor was made: pass or block, layer, number in the program."""


class Expansion:
    """Appends one step to a trace."""

    def __init__(self, program: Program, full: Mapping[str, int], trace: Trace) -> None:
        """`full`: what `symbols.dimensions` gave."""
        self._program = program
        self._sizes = program.sizes(full)
        self._layers = full["L"]
        self._trace = trace
        self._live: defaultdict[tuple[str, int | None, int], deque[int]] = defaultdict(deque)
        self._owner = {event: name for name, events in program.blocks.items() for event in events if event > 0}

    def run(self, *, accumulate: bool) -> None:
        """Append the step; with `accumulate` the gradients are there before it."""
        gradients: set[int] = self._program.gradients if accumulate else set()
        kept = [self._trace.alloc(self._sizes[tensor - 1]) for tensor in self._each(gradients)]
        for block, layer in sequence(self._layers):
            for event in self._program.blocks.get(block, ()):
                if abs(event) not in gradients:
                    self._play(event, block, layer)
                elif event > 0:
                    self._trace.free(self._trace.alloc(self._sizes[event - 1]))
        for tensor in kept:
            self._trace.free(tensor)

    def _each(self, gradients: set[int]) -> list[int]:
        blocks = self._program.blocks
        return [event for name, _ in sequence(self._layers) for event in blocks.get(name, ()) if event in gradients]

    def _play(self, event: int, block: str, layer: int | None) -> None:
        tensor = abs(event)
        if event > 0:
            self._live[self._key(block, layer, tensor)].append(self._trace.alloc(self._sizes[tensor - 1]))
            return
        owner = self._owner.get(tensor)
        if owner is None:
            return
        if owner[0] not in "FB":
            self._free(owner, None, tensor)
        elif layer is None:
            for made_in in self._made_in(owner):
                self._free(owner, made_in, tensor)
        else:
            # In the miniature it was made so many layers before this one; the layers between may differ by one.
            distance = int(owner[1:]) - int(block[1:])
            for near in (0, 1, -1):
                if self._free(owner, layer + distance + near, tensor):
                    break

    def _made_in(self, owner: str) -> range:
        """The layers that a block of the miniature stands for."""
        number, missing = int(owner[1:]), self._layers - MINIATURE_LAYERS
        if owner in REPEATED:
            return range(number, number + missing + 1)
        after = number > (2 if owner[0] == "F" else 3)
        return range(number + missing, number + missing + 1) if after else range(number, number + 1)

    def _key(self, block: str, layer: int | None, tensor: int) -> _Place:
        """Tensors of a layer are told apart by size alone: layers may differ in the order they make them."""
        return (block[0], layer, self._sizes[tensor - 1]) if block[0] in "FB" else (block, None, tensor)

    def _free(self, owner: str, layer: int | None, tensor: int) -> bool:
        waiting = self._live[self._key(owner, layer, tensor)]
        if not waiting:
            return False
        self._trace.free(waiting.popleft())
        return True
