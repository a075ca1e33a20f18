"""Bradley-Terry strengths, on the scale of Elo: what the order average of Elo comes close to, without any order.

Bradley and Terry, Biometrika 39 (1952). A tie counts as half a win for each. The likelihood has a maximum only when
every model lost, directly or through others, to every other (Ford, 1957); without that no strength is finite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qlora_tui.arena.matches import Matches

_MOST_STEPS = 200
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class BradleyTerry:
    """Arrays with one entry a model, on the scale of Elo with the mean at the start."""

    strength: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    samples: int
    """Draws of the questions behind the interval; those without finite strengths are left out."""


def strengths(wins: NDArray[np.float64], *, start: float, scale: float) -> NDArray[np.float64] | None:
    """Maximum-likelihood strengths from `wins[i, j]`, what i scored against j; None when they are not all finite.

    The log-likelihood is concave in the logarithms of the strengths, and Newton steps find its maximum.
    """
    import numpy as np

    if not _strongly_connected(wins):
        return None
    games = wins + wins.T
    logs = np.zeros(len(wins))
    for _ in range(_MOST_STEPS):
        chance = 1 / (1 + np.exp(logs[None, :] - logs[:, None]))
        gradient = (wins - games * chance).sum(axis=1)
        weight = games * chance * (1 - chance)
        hessian = np.diag(weight.sum(axis=1)) - weight
        # Adding one to every entry fixes the mean of the strengths, which the data leaves open.
        step = np.linalg.solve(hessian + 1, gradient)
        logs += step * min(1.0, 2.0 / max(1e-300, float(np.abs(step).max())))
        logs -= logs.mean()
        if np.abs(step).max() < _TOLERANCE:
            break
    result: NDArray[np.float64] = start + scale / np.log(10) * logs
    return result


def fit(matches: Matches, *, start: float, scale: float, samples: int, seed: int, level: float) -> BradleyTerry | None:
    """Strengths with a percentile interval over draws of the questions; None when they are not all finite."""
    import numpy as np

    count = len(matches.models)
    cells = np.concatenate([matches.first * count + matches.second, matches.second * count + matches.first])
    scores = np.concatenate([matches.score, 1 - matches.score])
    questions = np.concatenate([matches.question, matches.question])

    def wins(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        table: NDArray[np.float64] = np.bincount(cells, scores * weights[questions], count * count).astype(np.float64)
        return table.reshape(count, count)

    best = strengths(wins(np.ones(len(matches.questions))), start=start, scale=scale)
    if best is None:
        return None
    rng = np.random.default_rng([seed, 3])
    share = np.full(len(matches.questions), 1 / len(matches.questions))
    drawn = (rng.multinomial(len(matches.questions), share).astype(float) for _ in range(samples))
    found = [fitted for weights in drawn if (fitted := strengths(wins(weights), start=start, scale=scale)) is not None]
    if not found:
        return BradleyTerry(best, best, best, 0)
    low, high = np.quantile(np.array(found), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return BradleyTerry(best, low, high, len(found))


def _strongly_connected(wins: NDArray[np.float64]) -> bool:
    """Whether from every model a chain of (half) wins leads to every other."""
    return _reaches_all(wins > 0) and _reaches_all(wins.T > 0)


def _reaches_all(beats: NDArray[np.bool_]) -> bool:
    import numpy as np

    reached = np.zeros(len(beats), dtype=bool)
    reached[0] = True
    while True:
        grown = reached | beats[reached].any(axis=0)
        if (grown == reached).all():
            return bool(reached.all())
        reached = grown
