"""Scores as a percentage of a reference's: 100 x the sum of a model's scores / the sum of the reference's.

The original work's "relative to ChatGPT": per order of showing, and pooled over both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qlora_tui.arena.ratings import Rating
from qlora_tui.errors import DataError, nearest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class RelativeScore:
    """Percentages of the reference's score; None where nothing was scored in that order."""

    model: str
    questions: int
    unscored: int
    reference_first: float | None
    model_first: float | None
    pooled: float
    low: float
    high: float


def relative_scores(
    ratings: Sequence[Rating], reference: str, *, samples: int = 2000, seed: int = 0, level: float = 0.95
) -> list[RelativeScore]:
    """The relative score of every model that was scored against `reference`, best first.

    The interval is a percentile bootstrap over questions; both orders of a question are drawn together.
    Raises DataError when the reference was never scored, naming the nearest model.
    """
    against: dict[str, list[Rating]] = defaultdict(list)
    for rating in ratings:
        if reference in rating.models:
            other = rating.model_2 if rating.model_1 == reference else rating.model_1
            against[other].append(rating)
    if not against:
        known = sorted({model for rating in ratings for model in rating.models})
        raise DataError(f"nothing was compared with {reference!r}", hint=nearest(reference, known))
    if not any(rating.scores for rating in ratings):
        raise DataError(
            "these ratings hold no scores, only winners",
            hint="Judge with --protocol ten-point, or rank them with `arena elo`.",
        )
    scored = [
        _one(model, among, reference, samples, seed, level)
        for model, among in against.items()
        if any(rating.scores for rating in among)
    ]
    return sorted(scored, key=lambda score: -score.pooled)


def _one(model: str, ratings: list[Rating], reference: str, samples: int, seed: int, level: float) -> RelativeScore:
    import numpy as np

    questions = sorted({rating.question_id for rating in ratings if rating.scores})
    index = {question: number for number, question in enumerate(questions)}
    # [order of showing, model or reference, question]
    sums = np.zeros((2, 2, len(questions)))
    for rating in ratings:
        if rating.scores is None:
            continue
        shown_first = rating.model_1 == model
        own, other = rating.scores if shown_first else rating.scores[::-1]
        sums[int(shown_first), :, index[rating.question_id]] += own, other
    if not sums[:, 1].sum():
        raise DataError(f"{reference!r} scored nothing against {model!r}", hint="A percentage of zero says nothing.")
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(questions), np.full(len(questions), 1 / len(questions)), samples)
    drawn = weights @ sums.sum(axis=0).T
    drawn = drawn[drawn[:, 1] > 0]
    low, high = np.quantile(100 * drawn[:, 0] / drawn[:, 1], [(1 - level) / 2, (1 + level) / 2])
    return RelativeScore(
        model, len(questions), sum(rating.scores is None for rating in ratings), _percent(sums[0]), _percent(sums[1]),
        _percent(sums.sum(axis=0)) or 0.0, float(low), float(high),
    )  # fmt: skip


def _percent(sums: NDArray[np.float64]) -> float | None:
    """100 x model / reference of [model or reference, question]."""
    own, other = (float(part.sum()) for part in sums)
    return 100 * own / other if other else None
