"""From a run's points to what a plot draws: curves, their smoothing, and two points a column. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from qlora_tui.runs.events import Eval, Step
from qlora_tui.runs.series import Mean, Series
from qlora_tui.runs.smoothing import smoothed
from qlora_tui.runs.state import RunState

_ENOUGH_BUCKETS = 512
"""More than two points per column of a wide terminal."""


class Curve(NamedTuple):
    """Values over optimizer steps, in step order. A value that was not finite is left out."""

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def near(self, step: float) -> tuple[int, float] | None:
        """The step that is closest to `step`, and its value."""
        if not self.steps:
            return None
        after = min(bisect_left(self.steps, step), len(self.steps) - 1)
        index = min(max(after - 1, 0), after, key=lambda place: abs(self.steps[place] - step))
        return self.steps[index], self.values[index]

    def within(self, low: float, high: float) -> Curve:
        """The part between two steps, with one neighbour on each side so that a line reaches the edges."""
        start = max(bisect_left(self.steps, low) - 1, 0)
        end = bisect_right(self.steps, high) + 1
        return Curve(self.steps[start:end], self.values[start:end])


class Curves(NamedTuple):
    """Everything that is plotted of a run."""

    loss: Curve = Curve()
    smoothed: Curve = Curve()
    evals: Curve = Curve()
    learning_rate: Curve = Curve()
    grad_norm: Curve = Curve()
    smoothed_norm: Curve = Curve()


class Detail(NamedTuple):
    """A part of a long run, read in detail."""

    low: int
    high: int
    """First and last requested step."""

    width: int
    """Steps of each bucket: 1 when every step is there."""

    curves: Curves


def curves(state: RunState) -> Curves:
    """Return the curves of a state: every step of a short run, of a long one what the state keeps."""
    return _curves(state.steps, state.evals)


def detail(low: int, high: int, steps: Series[Step], evals: Series[Eval]) -> Detail:
    """Return the curves of steps read in detail, with the evaluations of the run."""
    return Detail(low, high, steps.width, _curves(steps, evals))


def is_coarse(width: int, window: tuple[float, float]) -> bool:
    """Return whether buckets of `width` steps are too coarse for a plot of the window."""
    return width > 1 and (window[1] - window[0]) / width < _ENOUGH_BUCKETS


def _curves(steps: Series[Step], evals: Series[Eval]) -> Curves:
    points = steps.points()
    return Curves(
        loss=_curve((point.step, point.loss) for point in points),
        smoothed=_smoothed(steps.means("loss")),
        evals=_curve((point.step, point.loss) for point in evals.points()),
        learning_rate=_curve((point.step, point.learning_rate) for point in points),
        grad_norm=_curve((point.step, point.grad_norm) for point in points),
        smoothed_norm=_smoothed(steps.means("grad_norm")),
    )


def _curve(points: Iterable[tuple[int, float | None]]) -> Curve:
    kept = [(step, value) for step, value in points if value is not None]
    return Curve(tuple(step for step, _ in kept), tuple(value for _, value in kept))


def _smoothed(means: Sequence[Mean]) -> Curve:
    return Curve(tuple(mean.step for mean in means), tuple(smoothed(means)))


def decimated(curve: Curve, columns: int) -> Curve:
    """The lowest and the highest point of each column, in step order: two points a column look like all of them."""
    count = len(curve.steps)
    if count <= 2 * columns or columns < 1:
        return curve
    kept: list[int] = []
    for column in range(columns):
        part = range(column * count // columns, (column + 1) * count // columns)
        low, high = min(part, key=curve.values.__getitem__), max(part, key=curve.values.__getitem__)
        kept += sorted({low, high})
    kept[0], kept[-1] = min(kept[0], 0), max(kept[-1], count - 1)
    return Curve(tuple(curve.steps[index] for index in kept), tuple(curve.values[index] for index in kept))
