"""Whether two sets of marks on the same questions differ by more than chance: the paired bootstrap.

Efron and Tibshirani, An Introduction to the Bootstrap (1993): questions are drawn again with replacement, both marks of
a question together, and the difference of the means is taken in each draw.
"""

from dataclasses import dataclass

from qlora_tui.evaluation.measured import Marks

_LEAST_QUESTIONS = 2


@dataclass(frozen=True)
class Difference:
    """Mean of the second minus mean of the first, over the questions that both have."""

    questions: int
    difference: float
    low: float
    high: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def difference(
    first: Marks, second: Marks, *, samples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Difference | None:
    """The difference with a percentile interval.

    None with fewer than two questions in common, and when one of them weighs more for one side than for the other:
    then they are not the same questions.
    """
    import numpy as np

    common = sorted(first.keys() & second.keys())
    if len(common) < _LEAST_QUESTIONS or any(first[key][1] != second[key][1] for key in common):
        return None
    sums = np.array(
        [
            [first[key][0] * first[key][1], first[key][1], second[key][0] * second[key][1], second[key][1]]
            for key in common
        ]
    )
    whole = sums.sum(axis=0)
    rng = np.random.default_rng(seed)
    share = np.full(len(common), 1 / len(common))
    drawn = np.concatenate([rng.multinomial(len(common), share, part) @ sums for part in _parts(samples, len(common))])
    differences = drawn[:, 2] / drawn[:, 3] - drawn[:, 0] / drawn[:, 1]
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return Difference(len(common), float(whole[2] / whole[3] - whole[0] / whole[1]), float(low), float(high))


def _parts(samples: int, questions: int) -> list[int]:
    """Draws at a time, so that a large set of questions needs no large table of counts."""
    most = max(1, 4_000_000 // questions)
    return [min(most, samples - begin) for begin in range(0, samples, most)]
