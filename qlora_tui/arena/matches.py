"""Ratings as numbers: one match a verdict, models and questions as indices, and which models were ever linked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qlora_tui.arena.ratings import Rating
from qlora_tui.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Matches:
    """Matches in the order of the ratings; the four arrays have one entry a match."""

    models: list[str]
    questions: list[str]
    first: NDArray[np.intp]
    """Index of the model shown first."""

    second: NDArray[np.intp]
    score: NDArray[np.float64]
    """Of the model shown first: 1, 0.5 or 0."""

    question: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.score)


def matches_of(ratings: Sequence[Rating]) -> Matches:
    """The parsed ratings as matches, models and questions in alphabetical order.

    Raises DataError when there is no match, or when the models fall into groups that were never compared.
    """
    import numpy as np

    parsed = [rating for rating in ratings if rating.outcome != "unparsed"]
    if not parsed:
        raise DataError("no rating has an outcome", hint="Every verdict is unparsed; --reparse reads them again.")
    models = sorted({model for rating in parsed for model in rating.models})
    questions = sorted({rating.question_id for rating in parsed})
    model_index = {model: number for number, model in enumerate(models)}
    question_index = {question: number for number, question in enumerate(questions)}
    _refuse_groups(groups(parsed))
    return Matches(
        models,
        questions,
        np.array([model_index[rating.model_1] for rating in parsed], dtype=np.intp),
        np.array([model_index[rating.model_2] for rating in parsed], dtype=np.intp),
        np.array([rating.score_of_first for rating in parsed]),
        np.array([question_index[rating.question_id] for rating in parsed], dtype=np.intp),
    )


def groups(ratings: Sequence[Rating]) -> list[list[str]]:
    """Models that are linked by comparisons, directly or through others; the largest group first."""
    leader: dict[str, str] = {}

    def find(model: str) -> str:
        while leader.setdefault(model, model) != model:
            leader[model] = leader[leader[model]]
            model = leader[model]
        return model

    for rating in ratings:
        leader[find(rating.model_1)] = find(rating.model_2)
    found: dict[str, list[str]] = {}
    for model in sorted(leader):
        found.setdefault(find(model), []).append(model)
    return sorted(found.values(), key=lambda group: (-len(group), group))


def _refuse_groups(found: list[list[str]]) -> None:
    if len(found) > 1:
        named = "; ".join(f"({number}) {', '.join(group)}" for number, group in enumerate(found, start=1))
        raise DataError(
            f"these groups of models were never compared with each other: {named}",
            hint="Rank one group: " + " ".join(f"--only {model}" for model in found[0]) + ".",
        )
