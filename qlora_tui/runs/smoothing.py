"""The smoothed training loss: current loss without the noise of single batches."""

from collections.abc import Sequence

from qlora_tui.runs.series import Mean

_SPANS = 25
"""Smoothing window as a fraction of the run: 1/25, at least five points."""

_SHORTEST_SPAN_POINTS = 5


def smoothed(means: Sequence[Mean]) -> list[float]:
    """Return the exponential moving average, without the bias of its beginning (Kingma and Ba, Adam, section 3).

    Means of fewer values have less weight.
    """
    span = max(_SHORTEST_SPAN_POINTS, len(means) // _SPANS)
    most = max((mean.weight for mean in means), default=1)
    average, weight, values = 0.0, 0.0, []
    for mean in means:
        keep = (1 - 2 / (span + 1)) ** (mean.weight / most)
        average = keep * average + (1 - keep) * mean.value
        weight = keep * weight + (1 - keep)
        values.append(average / weight)
    return values
