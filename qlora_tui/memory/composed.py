"""The recorded step of any list of target modules, put together from two: adapters on every linear layer, and on none.

The events of a linear layer come from the recording that has it as it is wanted, and those around the layers from one
of both. What the adapters alone keep alive, such as the input that several layers share, lives as long as the last
of the wanted adapters needs it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from qlora_tui.memory.dissected import Recording
from qlora_tui.memory.recorded import BLOCKS, GRADIENTS, Program
from qlora_tui.memory.symbols import SizeSymbols

_Tensor = tuple[bool, int]
"""A tensor of a recording: whether of the one with adapters, and its number there."""

_Anchor = tuple[bool, str, int]
"""An event of a recording: whether of the one with adapters, its block, and its place in the block."""


class CompositionError(Exception):
    """The two recordings differ in more than in their adapters."""


def compose(every: Program, none: Program, wanted: frozenset[str], unsaved: Program | None = None) -> Program:
    """The program with adapters on the linear layers whose last names are `wanted`. Raises CompositionError.

    `unsaved`: without checkpointing, the recording of no adapters with it, whose forward pass keeps nothing.
    """
    without_gradients = Recording.of(unsaved) if unsaved is not None else None
    return _Composition(Recording.of(every), Recording.of(none), wanted, without_gradients).program()


def modules(every: Program) -> tuple[str, ...]:
    """Last names of the linear layers of a recording with adapters on each."""
    return tuple(dict.fromkeys(name for name, _, _ in every.parts.get("F2", ()) if name))


class _Composition:
    def __init__(self, every: Recording, none: Recording, wanted: frozenset[str], unsaved: Recording | None) -> None:
        self._both = {True: every, False: none}
        self._wanted, self._unsaved = wanted, unsaved
        self._order = every.modules()
        self._like: dict[_Tensor, _Tensor] = {}
        self._match()
        self._around = self._frame()

    def program(self) -> Program:
        streams = {block: list(self._stream(block)) for block in BLOCKS if block in self._both[True].program.blocks}
        made = [(adapted, self._event(at)) for at in _flat(streams) for adapted in (at[0],) if self._event(at) > 0]
        numbers = {tensor: number for number, tensor in enumerate(made, 1)}
        deaths: dict[_Anchor, list[int]] = defaultdict(list)
        included = {at: (block, place) for block, stream in streams.items() for place, at in enumerate(stream)}
        starts: dict[str, list[int]] = defaultdict(list)
        for tensor, number in numbers.items():
            anchor = self._death(tensor, included)
            if anchor is None:
                continue
            placed = self._recomputed(tensor, anchor, streams) or self._placed(anchor, included, streams)
            if placed is None:
                starts[anchor[1]].append(number)
            else:
                deaths[placed].append(number)
        blocks = {}
        for block, stream in streams.items():
            events = [-number for number in starts[block]]
            for at in stream:
                if self._event(at) > 0:
                    events.append(numbers[at[0], self._event(at)])
                events += [-number for number in deaths.get(at, ())]
            blocks[block] = tuple(events)
        return self._merged(made, blocks)

    def _merged(self, made: Sequence[_Tensor], blocks: dict[str, tuple[int, ...]]) -> Program:
        symbols: dict[SizeSymbols, int] = {}
        categories: dict[str, int] = {}
        tensors = []
        for adapted, number in made:
            recording = self._both[adapted]
            size = symbols.setdefault(recording.symbols(number), len(symbols))
            tensors.append((size, categories.setdefault(recording.category(number), len(categories))))
        every = self._both[True].program
        return replace(
            every, symbols=tuple(symbols), categories=tuple(categories), tensors=tuple(tensors), blocks=blocks,
            parts={}, reads={},
        )  # fmt: skip

    def _event(self, at: _Anchor) -> int:
        return self._both[at[0]].program.blocks[at[1]][at[2]]

    def _match(self) -> None:
        """Find the tensors that are in both recordings."""
        every, none = self._both[True], self._both[False]
        for key, numbers in none.common.items():
            if key[0][0] not in "FBG":
                continue
            for mine, other in zip(numbers, every.common.get(key, ()), strict=False):
                if none.symbols(mine) != every.symbols(other):
                    raise CompositionError(f"{key}: {none.symbols(mine)} is not {every.symbols(other)}")
                self._alike(mine, other)
        for block, name, again in none.pieces:
            rest = every.survivors(block, name, again)
            for mine in reversed(none.survivors(block, name, again)):
                same = [each for each in rest if every.symbols(each) == none.symbols(mine)]
                if same:
                    rest = rest[: rest.index(same[-1])]
                    self._alike(mine, same[-1])
        for block in ("E", "H"):
            for mine, other in zip(_births(none, block), _births(every, block), strict=False):
                if none.symbols(mine) == every.symbols(other):
                    self._alike(mine, other)

    def _alike(self, none: int, every: int) -> None:
        self._like[False, none], self._like[True, every] = (True, every), (False, none)

    def _frame(self) -> bool:
        """From which recording the events around the layers come.

        With checkpointing a layer is recomputed up to the last tensor that is kept of it. Where an adapter of its last
        linear layer keeps nothing, that layer does not run again, and its backward pass needs no recomputation.
        """
        every, none = self._both[True], self._both[False]
        ending = {
            name for block, name, again in every.pieces
            if again and block == "B2" and (block, name, True) not in none.pieces
        }  # fmt: skip
        return bool(ending & self._wanted) or not any(again for _, _, again in none.pieces)

    def _stream(self, block: str) -> Iterator[_Anchor]:
        if block[0] not in "FBG":
            yield from ((True, block, place) for place in range(len(self._both[True].program.blocks[block])))
            return
        done: set[tuple[str, bool]] = set()
        for place, (name, again) in enumerate(self._both[self._around].part[block]):
            adapted = name in self._wanted
            if not name or adapted == self._around:
                yield self._around, block, place
            elif (name, again) not in done:
                done.add((name, again))
                yield from ((adapted, *each) for each in self._elsewhere(adapted, block, name, again))

    def _elsewhere(self, adapted: bool, block: str, name: str, again: bool) -> Iterator[tuple[str, int]]:
        """Places of a layer in the other recording."""
        pieces = self._both[adapted].pieces
        later = f"B{int(block[1:]) + 1}"
        for where in (block, later) if block[0] == "B" and not again else (block,):
            if (where, name, again) in pieces:
                yield from ((where, place) for place in pieces[where, name, again])
                return

    def _death(self, tensor: _Tensor, included: Collection[_Anchor]) -> _Anchor | None:
        """Where a tensor goes."""
        like = self._like.get(tensor)
        own, other = self._end(tensor), self._end(like) if like else None
        if like is None or own is None or other is None:
            return own if own is not None else other
        with_all, with_none = (own, other) if tensor[0] else (other, own)
        held = self._module(with_all)
        if held and self._module(with_none) != held and self._is_input(tensor):
            reader = self._last_reader(self._with_adapters(tensor))
            if reader is None:
                return self._without_gradient(tensor, with_none)
            return self._without_gradient(tensor, with_all if reader == held else self._release(with_all, reader))
        first, second = (with_all, with_none) if self._around else (with_none, with_all)
        return self._without_gradient(tensor, second if first not in included and second in included else first)

    def _without_gradient(self, tensor: _Tensor, end: _Anchor) -> _Anchor:
        """The same without checkpointing in the first layer, which keeps nothing of what comes before its adapters."""
        block, place = self._both[tensor[0]].born[tensor[1]]
        if self._unsaved is None or block != "F0" or end[1] != "B0":
            return end
        name = self._both[tensor[0]].part[block][place][0]
        first = self._first_place(tensor[0])
        if place > first or (self._keeps_inputs and self._last_reader(self._with_adapters(tensor))):
            return end
        twin = self._unsaved_twin(tensor, name)
        died = self._unsaved.died.get(twin) if twin else None
        if died is None or died[0] != "F0":
            return end
        return self._unsaved_place(died[1]) or end

    def _first_place(self, adapted: bool) -> int:
        """Where the first wanted layer runs in the first layer of a recording."""
        return next(
            (place for place, (name, _) in enumerate(self._both[adapted].part["F0"]) if name in self._wanted), 0
        )

    def _unsaved_twin(self, tensor: _Tensor, name: str) -> int | None:
        own, unsaved = self._both[tensor[0]], self._unsaved
        if unsaved is None:
            return None
        if not name:
            place = own.common["F0", False].index(tensor[1])
            numbers = unsaved.common["F0", False]
            return numbers[place] if place < len(numbers) else None
        same = [
            each for each in unsaved.survivors("F0", name, False) if unsaved.symbols(each) == own.symbols(tensor[1])
        ]
        return same[-1] if same else None

    def _unsaved_place(self, place: int) -> _Anchor | None:
        """The event in the first layer that is before a place of the recording that keeps nothing."""
        unsaved, every = self._unsaved, self._both[self._around]
        if unsaved is None:
            return None
        for before in range(place, -1, -1):
            event, (name, _) = unsaved.program.blocks["F0"][before], unsaved.part["F0"][before]
            if name:
                adapted = name in self._wanted
                pieces = self._both[adapted].pieces.get(("F0", name, False))
                return (adapted, "F0", pieces[-1]) if pieces else None
            if event > 0:
                number = every.common["F0", False][unsaved.common["F0", False].index(event)]
                return self._around, "F0", every.born[number][1]
        return None

    @property
    def _keeps_inputs(self) -> bool:
        """Whether an adapter keeps its input: with dropout it keeps a copy."""
        return ".plain." in self._both[True].program.name

    def _with_adapters(self, tensor: _Tensor) -> _Tensor:
        return tensor if tensor[0] else self._like.get(tensor, (True, 0))

    def _is_input(self, tensor: _Tensor) -> bool:
        """Whether it is the input of a linear layer, which an adapter may keep."""
        number = self._with_adapters(tensor)[1]
        every = self._both[True].program
        return any(number == read for reads in every.reads.values() for _, read in reads)

    def _end(self, tensor: _Tensor) -> _Anchor | None:
        end = self._both[tensor[0]].died.get(tensor[1])
        return None if end is None else (tensor[0], *end)

    def _module(self, at: _Anchor) -> str:
        """The linear layer in whose backward pass an event is."""
        name, again = self._both[at[0]].part[at[1]][at[2]]
        return name if at[1][0] == "B" and not again else ""

    def _last_reader(self, tensor: _Tensor) -> str | None:
        """The wanted layer that needs a tensor longest: the first of those that read it."""
        reads = self._both[True].program.reads
        names = {name for each in reads.values() for name, number in each if number == tensor[1]}
        return next((name for name in self._order if name in names & self._wanted), None)

    def _release(self, end: _Anchor, reader: str) -> _Anchor:
        """Where the adapter of another layer lets go of the input that it shares: as soon as its gradients are made."""
        _, block, place = end
        behind = place - self._gradient(block, self._module(end))
        at = self._gradient(block, reader) + behind
        return True, block, at - 1

    def _gradient(self, block: str, name: str) -> int:
        """Place of the last gradient of a layer's adapter."""
        every = self._both[True]
        events = every.program.blocks[block]
        places = [
            place for place in every.pieces[block, name, False]
            if events[place] > 0 and every.category(events[place]) == GRADIENTS
        ]  # fmt: skip
        if not places:
            raise CompositionError(f"{name} makes no gradient in {block}")
        return places[-1]

    def _placed(
        self, anchor: _Anchor, included: dict[_Anchor, tuple[str, int]], streams: dict[str, list[_Anchor]]
    ) -> _Anchor | None:
        """The event of the composition after which something goes that goes at `anchor`; None: at its block's start."""
        if anchor in included:
            return anchor
        adapted, block, place = anchor
        recording = self._both[adapted]
        for before in range(place, -1, -1):
            event = recording.program.blocks[block][before]
            name, again = recording.part[block][before]
            if name:
                last = self._last_of(streams[block], name, again)
                if last is not None:
                    return last
            elif event > 0 and (like := self._like.get((adapted, event))):
                born = self._both[like[0]].born[like[1]]
                if (like[0], *born) in included:
                    return (like[0], *born)
        return None

    def _recomputed(self, tensor: _Tensor, anchor: _Anchor, streams: dict[str, list[_Anchor]]) -> _Anchor | None:
        """Where a tensor goes in a recomputation that is longer than the one it was recorded in.

        The shorter one lets go of everything where it stops. What the forward pass does tells how it goes on.
        """
        adapted, block, place = anchor
        none = self._both[False]
        if adapted or not self._around or block[0] != "B" or not none.part[block][place][1]:
            return None
        number = tensor[1] if not tensor[0] else self._like[tensor][1]
        made, forward = none.common[block, True], f"F{block[1:]}"
        if number not in made:
            return None
        died = none.died.get(none.common[forward, False][made.index(number)])
        if died is None or died[0] != forward:
            return None
        events = none.program.blocks[forward]
        for before in range(died[1], -1, -1):
            name, _ = none.part[forward][before]
            if name and (last := self._last_of(streams[block], name, True)):
                return last
            if not name and events[before] > 0:
                ordinal, twins = none.common[forward, False].index(events[before]), self._both[True].common[block, True]
                if ordinal < len(twins):
                    return True, block, self._both[True].born[twins[ordinal]][1]
        return None

    def _last_of(self, stream: Sequence[_Anchor], name: str, again: bool) -> _Anchor | None:
        """The last event of a layer."""
        return next((at for at in reversed(stream) if self._both[at[0]].part[at[1]][at[2]] == (name, again)), None)


def _births(recording: Recording, block: str) -> list[int]:
    return [event for event in recording.program.blocks.get(block, ()) if event > 0]


def _flat(streams: dict[str, list[_Anchor]]) -> Iterator[_Anchor]:
    for stream in streams.values():
        yield from stream
