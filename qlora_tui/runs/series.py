"""A growing curve in bounded memory: all points of a short curve; extremes and means of buckets for a long one.

Immutable and cheap to append to. The result does not depend on how many points are appended at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import chain
from operator import add, attrgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

MOST_POINTS = 4096
"""Up to this many points, all are kept."""

_MOST_BUCKETS = MOST_POINTS // 2
_CHUNK = 64

_step = attrgetter("step")


class _Dated(Protocol):
    @property
    def step(self) -> int: ...


Point = TypeVar("Point", bound=_Dated)


class Bucket(NamedTuple, Generic[Point]):
    """Consecutive points as one."""

    points: tuple[Point, ...]
    """Points with the lowest and highest value of each measure, in step order; all points if there are no values."""

    end: int
    """Step of its last point."""

    totals: tuple[float, ...]
    """Sums of the finite values of each measure, then their counts: plain numbers, which the garbage
    collector need not look at."""


class Mean(NamedTuple):
    """Mean of a measure over one bucket, at the last step of the bucket."""

    step: int
    value: float
    weight: int
    """Number of averaged values."""


class Series(NamedTuple, Generic[Point]):
    """Points in step order, grouped into buckets of `width` steps. A bucket is one point until there are 4,096."""

    measures: tuple[str, ...] = ("loss",)
    """Attributes of a point whose extremes are kept."""

    width: int = 1
    chunks: tuple[tuple[Bucket[Point], ...], ...] = ()
    tail: tuple[Bucket[Point], ...] = ()
    newest: Bucket[Point] | None = None
    """The bucket that later points are added to."""

    last: Point | None = None

    def append(self, point: Point) -> Series[Point]:
        """Return a series with one more point."""
        return self.extend([point])

    def extend(self, points: Sequence[Point]) -> Series[Point]:
        """Return a series with all of `points` after the others."""
        series, taken = self, 0
        while taken < len(points):
            if series.width == 1:
                room = MOST_POINTS - series._buckets
                piece = points[taken : taken + room]
                buckets = [_single(point, self.measures) for point in piece]
                before = [] if series.newest is None else [series.newest]
                series = series._closed([*before, *buckets[:-1]])._replace(newest=buckets[-1])
            else:
                end = (series._number(points[taken].step) + 1) * series.width + 1
                piece = points[taken : bisect_left(points, end, taken, key=_step)]
                series = series._with(piece)
            taken += len(piece)
            if series._buckets >= (MOST_POINTS if series.width == 1 else _MOST_BUCKETS):
                series = series._widened()
        return series._replace(last=points[-1]) if points else series

    def up_to(self, step: int, last: Point | None = None) -> Series[Point]:
        """Return the series without points after `step`, as when a run goes back to a checkpoint.

        `last` is the point at that step, for a series that has grouped it with later ones.
        """
        if self.last is None or self.last.step <= step:
            return self
        kept = []
        for bucket in self._all():
            points = tuple(point for point in bucket.points if point.step <= step)
            if points:
                kept.append(bucket if bucket.end <= step else _bucket(points, self.measures))
        if kept and (last is None or last.step < kept[-1].points[-1].step):
            last = kept[-1].points[-1]
        series = self._replace(chunks=(), tail=(), newest=None, last=last)
        return series._closed(kept[:-1])._replace(newest=kept[-1]) if kept else series

    def points(self) -> list[Point]:
        """Return the kept points in step order, the last one among them."""
        kept = [point for bucket in self._all() for point in bucket.points]
        if self.last is not None and (not kept or kept[-1] is not self.last):
            kept.append(self.last)
        return kept

    def means(self, measure: str) -> list[Mean]:
        """Return the mean of a measure over each bucket that has a value of it."""
        index = self.measures.index(measure)
        found = []
        for bucket in self._all():
            total, values = bucket.totals[index], bucket.totals[index + len(self.measures)]
            if values:
                found.append(Mean(bucket.end, total / values, int(values)))
        return found

    @property
    def _buckets(self) -> int:
        return len(self.chunks) * _CHUNK + len(self.tail) + (self.newest is not None)

    def _all(self) -> Iterator[Bucket[Point]]:
        newest = () if self.newest is None else (self.newest,)
        return chain(chain.from_iterable(self.chunks), self.tail, newest)

    def _number(self, step: int) -> int:
        return (step - 1) // self.width

    def _with(self, points: Sequence[Point]) -> Series[Point]:
        """Return the series with points that all belong to one bucket."""
        if self.newest is None:
            return self._replace(newest=_bucket(points, self.measures))
        if self._number(self.newest.end) == self._number(points[0].step):
            return self._replace(newest=_grown(self.newest, points, self.measures))
        return self._closed([self.newest])._replace(newest=_bucket(points, self.measures))

    def _closed(self, buckets: Sequence[Bucket[Point]]) -> Series[Point]:
        """Return the series with complete buckets, and without the newest one."""
        tail, chunks = [*self.tail, *buckets], list(self.chunks)
        while len(tail) >= _CHUNK:
            chunks.append(tuple(tail[:_CHUNK]))
            del tail[:_CHUNK]
        return self._replace(chunks=tuple(chunks), tail=tuple(tail), newest=None)

    def _widened(self) -> Series[Point]:
        """Return the series with fewer and wider buckets."""
        buckets, width = list(self._all()), self.width
        while len(buckets) > _MOST_BUCKETS // 2:
            width *= 2
            merged: list[Bucket[Point]] = []
            for bucket in buckets:
                if merged and (merged[-1].end - 1) // width == (bucket.end - 1) // width:
                    merged[-1] = _merged(merged[-1], bucket, self.measures)
                else:
                    merged.append(bucket)
            buckets = merged
        series = self._replace(width=width, chunks=(), tail=(), newest=None)
        return series._closed(buckets[:-1])._replace(newest=buckets[-1])


def _single(point: Point, measures: tuple[str, ...]) -> Bucket[Point]:
    values = [getattr(point, measure) for measure in measures]
    sums = [0.0 if value is None else value for value in values]
    return Bucket((point,), point.step, (*sums, *(float(value is not None) for value in values)))


def _bucket(points: Sequence[Point], measures: tuple[str, ...]) -> Bucket[Point]:
    return _grown(Bucket((), 0, (0.0,) * len(measures) * 2), points, measures)


def _grown(bucket: Bucket[Point], points: Sequence[Point], measures: tuple[str, ...]) -> Bucket[Point]:
    """Return the bucket with more points. Values are added one by one, so that the sum does not depend on batching."""
    candidates, before = (*bucket.points, *points), len(bucket.points)
    kept, sums, counts = set(), [], []
    half = len(measures)
    for index, measure in enumerate(measures):
        values = list(map(attrgetter(measure), candidates))
        new = values[before:]
        if None in values:
            new = [value for value in new if value is not None]
        kept |= _extremes(values)
        sums.append(reduce(add, new, bucket.totals[index]))
        counts.append(bucket.totals[index + half] + len(new))
    return Bucket(tuple(candidates[index] for index in sorted(kept)), points[-1].step, (*sums, *counts))


def _merged(one: Bucket[Point], other: Bucket[Point], measures: tuple[str, ...]) -> Bucket[Point]:
    points = (*one.points, *other.points)
    totals = tuple(map(add, one.totals, other.totals))
    kept = set().union(*(_extremes(list(map(attrgetter(measure), points))) for measure in measures))
    return Bucket(tuple(points[index] for index in sorted(kept)), other.end, totals)


def _extremes(values: list[float | None]) -> set[int]:
    """Return the indices of the lowest and highest value; the first index if there are no values."""
    finite = [value for value in values if value is not None]
    return {values.index(min(finite)), values.index(max(finite))} if finite else {0}
