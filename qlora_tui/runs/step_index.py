"""Index of the steps in a run's log, so that part of a long run can be read without reading the whole log."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from qlora_tui.runs.event_log import EventReader
from qlora_tui.runs.events import AnyEvent, Step
from qlora_tui.runs.series import Series

_PART_BYTES = 1 << 16


class Part(NamedTuple):
    """A section of the log that ends where the next one begins."""

    offset: int
    first_step: int
    last_step: int
    """Lowest and highest step in the section. After going back to a checkpoint, steps can be in several sections."""


class StepIndex:
    """Grows with the log by one entry per 64 KiB. Written by one thread, readable from any thread."""

    def __init__(self) -> None:
        self._parts: list[Part] = []

    def add(self, offset: int, batch: Sequence[AnyEvent]) -> None:
        """Add the steps of a batch of events that begins at `offset`."""
        steps = [event.step for event in batch if type(event) is Step]
        if not steps:
            return
        first, last = min(steps), max(steps)
        if self._parts and offset - self._parts[-1].offset < _PART_BYTES:
            before = self._parts[-1]
            self._parts[-1] = Part(before.offset, min(before.first_step, first), max(before.last_step, last))
        else:
            self._parts.append(Part(offset, first, last))

    def read(self, path: Path, low: int, high: int, is_cancelled: Callable[[], bool]) -> Series[Step]:
        """Read the steps from `low` to `high`: all of them, or as many as a series keeps.

        Returns what was read so far when it is cancelled. Raises StorageError when the log cannot be read.
        """
        series: Series[Step] = Series(("loss", "grad_norm"))
        ends = [*(part.offset for part in self._parts[1:]), None]
        for part, end in zip(tuple(self._parts), ends, strict=False):
            if part.last_step < low or part.first_step > high:
                continue
            reader = EventReader(path, part.offset)
            for batch in reader.batches():
                if is_cancelled():
                    return series
                steps = [event for event in batch if type(event) is Step and low <= event.step <= high]
                for attempt in _ascending(steps):
                    series = series.up_to(attempt[0].step - 1).extend(attempt)
                if end is not None and reader.offset >= end:
                    break
        return series


def _ascending(steps: Sequence[Step]) -> Iterator[Sequence[Step]]:
    """Split where a run went back to a checkpoint."""
    cuts = [index for index, (one, other) in enumerate(pairwise(steps), 1) if other.step <= one.step]
    for start, end in pairwise([0, *cuts, len(steps)]):
        if start < end:
            yield steps[start:end]
