"""A program unrolled over all layers of a real model, as allocations and frees for the allocator."""

from collections import defaultdict, deque
from collections.abc import Mapping

from qlora_tui.memory.allocator import Trace
from qlora_tui.memory.recorded import Program, sequence

_Place = tuple[str, int | None]
"""Where a tensor was made: the pass and its layer, or the block outside the layers."""


class Expansion:
    """Appends one step to a trace."""

    def __init__(self, program: Program, full: Mapping[str, int], trace: Trace) -> None:
        """`full`: what `symbols.dimensions` gave."""
        self._program = program
        self._sizes = program.sizes(full)
        self._sequence = list(sequence(full["L"], full["every"]))
        self._trace = trace
        self._owner = program.owners
        births = [[event for event in events if event > 0] for events in program.blocks.values()]
        self._ordinal = {tensor: number for made in births for number, tensor in enumerate(made)}
        self._live: defaultdict[_Place, defaultdict[int, deque[int]]] = defaultdict(lambda: defaultdict(deque))

    def run(self, *, accumulate: bool) -> None:
        """Append the step; with `accumulate` two micro-batches of it: the second finds the gradients of the first."""
        kept = self._micro_batch(self._program.gradients) if accumulate else []
        blocks = (self._program.accumulating() if accumulate else self._program).blocks
        for block, layer in self._sequence:
            for event in blocks.get(block, ()):
                self._play(event, block, layer)
        for tensor in kept:
            self._trace.free(tensor)

    def _micro_batch(self, gradients: set[int]) -> list[int]:
        """Append the first micro-batch. Returns the numbers of its gradients in the trace, which are left."""
        kept = []
        for block, layer in self._sequence:
            if block == "O":
                break
            for event in self._program.blocks.get(block, ()):
                if abs(event) not in gradients:
                    self._play(event, block, layer)
                elif event > 0:
                    kept.append(self._trace.alloc(self._sizes[event - 1]))
        return kept

    def _play(self, event: int, block: str, layer: int | None) -> None:
        tensor = abs(event)
        if event > 0:
            made = self._live[self._place(block, layer)]
            made[self._ordinal[tensor]].append(self._trace.alloc(self._sizes[tensor - 1]))
            return
        owner = self._owner.get(tensor)
        if owner is None:
            return
        if owner[0] not in "FB":
            self._free(owner, None, tensor)
        elif layer is None:
            for name, made_in in self._sequence:
                if name == owner:
                    self._free(owner, made_in, tensor)
        else:
            # In the miniature it was made so many layers before this one; the layers between may differ by one.
            distance = int(owner[1:]) - int(block[1:])
            for near in (0, 1, -1):
                if self._free(owner, layer + distance + near, tensor):
                    break

    def _place(self, block: str, layer: int | None) -> _Place:
        return (block[0], layer) if block[0] in "FB" else (block, None)

    def _free(self, owner: str, layer: int | None, tensor: int) -> bool:
        """Free the tensor with the same place in its block; where layers differ in their order, one of its size."""
        size, live = self._sizes[tensor - 1], self._live[self._place(owner, layer)]
        for ordinal in (self._ordinal[tensor], *live):
            waiting = live.get(ordinal)
            if waiting and self._trace.sizes[waiting[0]] == size:
                self._trace.free(waiting.popleft())
                return True
        return False
