"""A growing curve in bounded memory: immutable, cheap to append to, thinned evenly when it gets long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

_CHUNK = 64
_MOST_POINTS = 4096


class _Dated(Protocol):
    @property
    def step(self) -> int: ...


Point = TypeVar("Point", bound=_Dated)


class Series(NamedTuple, Generic[Point]):
    """Points in step order. From 4,096 points on every other one is dropped and later ones are thinned alike.

    The last point is always there, whatever the thinning.
    """

    chunks: tuple[tuple[Point, ...], ...] = ()
    tail: tuple[Point, ...] = ()
    last: Point | None = None
    stride: int = 1
    seen: int = 0

    def append(self, point: Point) -> Series[Point]:
        """A new series with one more point."""
        return self.extend([point])

    def extend(self, points: Sequence[Point]) -> Series[Point]:
        """A new series with all of `points` behind the others."""
        series, taken = self, 0
        while taken < len(points):
            # As many as fit into the tail: the stride may change only between two chunks.
            skipped = -series.seen % series.stride
            room = skipped + (_CHUNK - len(series.tail) - 1) * series.stride + 1
            piece = points[taken : taken + room]
            series, taken = series._with(piece, piece[skipped :: series.stride]), taken + len(piece)
        return series

    def _with(self, passed: Sequence[Point], kept: Sequence[Point]) -> Series[Point]:
        """With `kept`, which fits into the tail, of the points that have `passed`."""
        tail, seen = (*self.tail, *kept), self.seen + len(passed)
        if len(tail) < _CHUNK:
            return Series(self.chunks, tail, passed[-1], self.stride, seen)
        grown = Series((*self.chunks, tail), (), passed[-1], self.stride, seen)
        return grown._thinned() if len(grown.chunks) * _CHUNK >= _MOST_POINTS else grown

    def up_to(self, step: int) -> Series[Point]:
        """The series without points after `step`: what is left when a run goes back to a checkpoint."""
        if self.last is None or self.last.step <= step:
            return self
        kept = tuple(point for point in self._sampled() if point.step <= step)
        full = len(kept) // _CHUNK * _CHUNK
        chunks = tuple(kept[start : start + _CHUNK] for start in range(0, full, _CHUNK))
        return Series(chunks, kept[full:], kept[-1] if kept else None, self.stride, len(kept) * self.stride)

    def _thinned(self) -> Series[Point]:
        kept = tuple(self._sampled())[::2]
        chunks = tuple(kept[start : start + _CHUNK] for start in range(0, len(kept), _CHUNK))
        return Series(chunks, (), self.last, self.stride * 2, self.seen)

    def _sampled(self) -> Iterator[Point]:
        for chunk in self.chunks:
            yield from chunk
        yield from self.tail

    def points(self) -> list[Point]:
        """The kept points in step order, the newest last."""
        kept = list(self._sampled())
        if self.last is not None and (not kept or kept[-1] is not self.last):
            kept.append(self.last)
        return kept
