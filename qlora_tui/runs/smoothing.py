"""The smoothed training loss: where a run is, without the noise of single batches."""

from collections.abc import Sequence

from qlora_tui.runs.series import Mean

_SPANS = 25
"""The smoothing looks back over this share of the run: a 25th, but five points at least."""

_SHORTEST_SPAN_POINTS = 5


def smoothed(means: Sequence[Mean]) -> list[float]:
    """Return the exponential moving average, without the bias of its beginning (Kingma and Ba, Adam, section 3).

    A mean of fewer values than the others weighs less.
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
