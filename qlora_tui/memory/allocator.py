"""PyTorch's CUDA caching allocator in plain Python: what a sequence of allocations reserves, and the smallest GPU it
survives on.

The rules are those of c10/cuda/CUDACachingAllocator.cpp with default settings and one stream. `expandable_segments`
is not modelled: with it, reserved bytes come close to allocated ones.
"""

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

MIB = 1 << 20
GRANULARITY_BYTES = 512
"""Every request is rounded up to a multiple of this."""

_SMALL_REQUEST = MIB
_SMALL_SEGMENT = 2 * MIB
_MIDDLE_REQUEST = 10 * MIB
_MIDDLE_SEGMENT = 20 * MIB
_LARGE_ROUNDING = 2 * MIB
_SEGMENT_GAP = 1 << 44
"""Between the addresses of two segments, so that blocks of different segments never look like neighbours."""


def rounded(size_bytes: int) -> int:
    """Bytes the allocator charges for a request of `size_bytes`."""
    return -(-size_bytes // GRANULARITY_BYTES) * GRANULARITY_BYTES


@dataclass(slots=True)
class Trace:
    """A sequence of allocations and frees."""

    sizes: list[int] = field(default_factory=lambda: [0])
    """Charged bytes of each tensor, by its number. Numbers start at 1."""

    events: list[int] = field(default_factory=list)
    """+n: tensor n is allocated. -n: it is freed. 0: free segments are given back (`torch.cuda.empty_cache`)."""

    def alloc(self, size_bytes: int) -> int:
        """Allocate, and return the number of the tensor."""
        self.sizes.append(rounded(size_bytes))
        self.events.append(len(self.sizes) - 1)
        return len(self.sizes) - 1

    def free(self, tensor: int) -> None:
        self.events.append(-tensor)

    def empty_cache(self) -> None:
        self.events.append(0)

    def digest(self) -> bytes:
        """Return a hash of the sequence."""
        return blake2b(array("q", self.sizes).tobytes() + array("q", self.events).tobytes(), digest_size=16).digest()

    def levels(self) -> Iterator[int]:
        """Allocated bytes after each event."""
        level = 0
        for event in self.events:
            level += self.sizes[event] if event > 0 else -self.sizes[-event]
            yield level

    @property
    def peak_bytes(self) -> int:
        """Most bytes allocated at once: `torch.cuda.max_memory_allocated`."""
        return max(self.levels(), default=0)


@dataclass(frozen=True, slots=True)
class Replay:
    """What the allocator made of a trace."""

    reserved_bytes: int
    """Most bytes held from the driver at once: `torch.cuda.max_memory_reserved`."""

    fits: bool
    """Whether every allocation succeeded within the capacity."""


@dataclass(slots=True)
class _Block:
    address: int
    size: int
    small: bool
    is_free: bool = True
    before: "_Block | None" = None
    after: "_Block | None" = None


class _OutOfMemory(Exception):
    pass


class _Allocator:
    def __init__(self, capacity_bytes: int | None) -> None:
        self._capacity = capacity_bytes
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        self._blocks: dict[int, _Block] = {}
        self._of_tensor: dict[int, _Block] = {}
        self._next_address = 0
        self._reserved = 0
        self.peak_reserved = 0

    def alloc(self, tensor: int, size: int) -> None:
        if not size:
            return
        small = size <= _SMALL_REQUEST
        pool = self._free[small]
        # Best fit: the smallest free block that is large enough, the one at the lowest address among equals.
        found = bisect_left(pool, (size, -1))
        block = self._blocks[pool.pop(found)[1]] if found < len(pool) else self._segment(size, small)
        block.is_free = False
        rest = block.size - size
        if rest >= GRANULARITY_BYTES if small else rest > _SMALL_REQUEST:
            self._split(block, size)
        self._of_tensor[tensor] = block

    def free(self, tensor: int) -> None:
        block = self._of_tensor.pop(tensor, None)
        if block is None:
            return
        block.is_free = True
        after, before = block.after, block.before
        if after is not None and after.is_free:
            self._take(after)
            self._join(block, after)
        if before is not None and before.is_free:
            self._take(before)
            self._join(before, block)
            block = before
        insort(self._free[block.small], (block.size, block.address))

    def release(self) -> None:
        """Give segments that are wholly free back to the driver."""
        for small, pool in self._free.items():
            kept = []
            for size, address in pool:
                block = self._blocks[address]
                if block.before is None and block.after is None:
                    self._reserved -= size
                    del self._blocks[address]
                else:
                    kept.append((size, address))
            self._free[small] = kept

    def _segment(self, size: int, small: bool) -> _Block:
        if small:
            segment = _SMALL_SEGMENT
        elif size < _MIDDLE_REQUEST:
            segment = _MIDDLE_SEGMENT
        else:
            segment = -(-size // _LARGE_ROUNDING) * _LARGE_ROUNDING
        if self._capacity is not None and self._reserved + segment > self._capacity:
            self.release()
            if self._reserved + segment > self._capacity:
                raise _OutOfMemory
        block = _Block(self._next_address, segment, small)
        self._next_address += _SEGMENT_GAP
        self._blocks[block.address] = block
        self._reserved += segment
        self.peak_reserved = max(self.peak_reserved, self._reserved)
        return block

    def _split(self, block: _Block, size: int) -> None:
        rest = _Block(block.address + size, block.size - size, block.small, before=block, after=block.after)
        if block.after is not None:
            block.after.before = rest
        block.after, block.size = rest, size
        self._blocks[rest.address] = rest
        insort(self._free[rest.small], (rest.size, rest.address))

    def _join(self, first: _Block, second: _Block) -> None:
        first.size += second.size
        first.after = second.after
        if second.after is not None:
            second.after.before = first
        del self._blocks[second.address]

    def _take(self, block: _Block) -> None:
        pool = self._free[block.small]
        del pool[bisect_left(pool, (block.size, block.address))]


def replay(trace: Trace, capacity_bytes: int | None = None) -> Replay:
    """Run a trace through the allocator. Like PyTorch, it gives cached segments back before it gives up.

    `capacity_bytes`: what the driver can hand out; None for no limit.
    """
    allocator = _Allocator(capacity_bytes)
    try:
        for event in trace.events:
            if event > 0:
                allocator.alloc(event, trace.sizes[event])
            elif event:
                allocator.free(-event)
            else:
                allocator.release()
    except _OutOfMemory:
        return Replay(allocator.peak_reserved, fits=False)
    return Replay(allocator.peak_reserved, fits=True)


_MOST_CAPACITIES = 1000
_capacities: dict[tuple[bytes, int | None], int] = {}
"""Results of earlier searches, which take up to a second each. The oldest are dropped first."""


def smallest_capacity(trace: Trace, tolerance_bytes: int | None = None) -> int:
    """Fewest bytes the driver must be able to hand out for the trace to survive, fragmentation included.

    By bisection between the allocated peak and what is reserved without a limit; never below the true value, above it
    by at most `tolerance_bytes` (default: 0.2 % of the peak, between 2 and 16 MiB).
    """
    key = trace.digest(), tolerance_bytes
    if key not in _capacities:
        if len(_capacities) >= _MOST_CAPACITIES:
            _capacities.pop(next(iter(_capacities)))
        _capacities[key] = _searched(trace, tolerance_bytes)
    return _capacities[key]


def _searched(trace: Trace, tolerance_bytes: int | None) -> int:
    low, high = trace.peak_bytes, replay(trace).reserved_bytes
    tolerance = tolerance_bytes or min(16 * MIB, max(2 * MIB, low // 512))
    if replay(trace, low).fits:
        return low
    while high - low > tolerance:
        middle = (low + high) // 2
        if replay(trace, middle).fits:
            high = middle
        else:
            low = middle
    return high
