"""The life of every tensor storage of a simulated run, in order, by category and phase."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from qlora_tui.memory.allocator import Trace, rounded


@dataclass(slots=True)
class Birth:
    """One allocation."""

    size_bytes: int
    """As asked for, before the allocator rounds it up."""

    category: str
    operation: str
    """The operator that made it, or "scratch:NAME" for what a CUDA kernel takes without telling the dispatcher."""

    shape: tuple[int | str, ...]
    """Shape of the tensor; of scratch (bytes of one element, names of dimensions...)."""

    phase: str


@dataclass(slots=True)
class Ledger:
    """Written while the simulation runs. Storages are numbered from 1."""

    births: list[Birth] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    """+n: storage n is made. -n: it is gone. 0: the cache is emptied."""

    phases: list[str] = field(default_factory=list)
    """Phase of each event."""

    modules: list[tuple[str, bool]] = field(default_factory=list)
    """Of each event the linear layer that ran ("" for what is around them), and whether it was recomputed."""

    reads: list[tuple[int, str, int]] = field(default_factory=list)
    """Events before a linear layer ran, its name, and the number of its input."""

    phase: str = "load"
    module: str = ""
    recomputes: bool = False
    category: str | None = None
    """Overrides the category of what is made."""

    level_bytes: int = 0
    peak_bytes: int = 0
    peak_event: int = 0
    """Events up to the peak. Since the last `reset_peak`."""

    def alloc(self, size_bytes: int, operation: str, shape: tuple[int | str, ...], category: str) -> int:
        """Note an allocation and return its number."""
        self.births.append(Birth(size_bytes, self.category or category, operation, shape, self.phase))
        number = len(self.births)
        self._event(number)
        self.level_bytes += rounded(size_bytes)
        if self.level_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_event = self.level_bytes, len(self.events)
        return number

    def free(self, number: int) -> None:
        self._event(-number)
        self.level_bytes -= rounded(self.births[number - 1].size_bytes)

    def empty_cache(self) -> None:
        self._event(0)

    def _event(self, event: int) -> None:
        self.events.append(event)
        self.phases.append(self.phase)
        self.modules.append((self.module, self.recomputes))

    def reset_peak(self) -> None:
        self.peak_bytes, self.peak_event = self.level_bytes, len(self.events)

    def live(self, events: int | None = None) -> Iterator[Birth]:
        """What is there after so many events (default: all), oldest first."""
        numbers: dict[int, None] = {}
        for event in self.events[:events]:
            if event > 0:
                numbers[event] = None
            else:
                numbers.pop(-event, None)
        return (self.births[number - 1] for number in numbers)

    def by_category(self, events: int | None = None) -> dict[str, int]:
        """Charged bytes of what is live after so many events."""
        found: Counter[str] = Counter()
        for birth in self.live(events):
            found[birth.category] += rounded(birth.size_bytes)
        return dict(found)

    def phase_peaks(self) -> dict[str, int]:
        """Most charged bytes in each phase; the part of a phase's name before the first dot counts."""
        peaks: dict[str, int] = {}
        for level, phase in zip(self.trace().levels(), self.phases, strict=True):
            name = phase.partition(".")[0]
            peaks[name] = max(peaks.get(name, 0), level)
        return peaks

    def trace(self) -> Trace:
        """The same for the allocator."""
        return Trace([0, *(rounded(birth.size_bytes) for birth in self.births)], list(self.events))
