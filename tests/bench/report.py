"""One line of the benchmark: two figures, their ratio, and the goal."""

from typing import NamedTuple


class Ratio(NamedTuple):
    what: str
    ours: float
    theirs: float
    goal: float
    at_least: bool = True

    @property
    def value(self) -> float:
        return self.ours / self.theirs

    def line(self) -> str:
        met = self.value >= self.goal if self.at_least else self.value <= self.goal
        sign = ">=" if self.at_least else "<="
        return (
            f"{self.what:<72} {self.ours:>12,.3f} / {self.theirs:>12,.3f} = {self.value:>8.2f}"
            f"   goal {sign} {self.goal:g}  {'met' if met else 'MISSED'}"
        )
