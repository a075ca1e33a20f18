"""A comparison of runs with the verdicts on their answers: win rates and a ranking."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from qlora_tui.arena.elo import EloSettings
from qlora_tui.arena.ranking import Ranking, rank
from qlora_tui.arena.ratings import Rating
from qlora_tui.errors import DataError
from qlora_tui.evaluation.comparison import BASE_SUFFIX, MetricRow, RunsComparison, described
from qlora_tui.evaluation.html_report import Section
from qlora_tui.evaluation.measured import Marks
from qlora_tui.evaluation.paired import difference


@dataclass(frozen=True)
class JudgedComparison:
    """A comparison whose evaluations include win rates."""

    comparison: RunsComparison
    ranking: Ranking | None
    """None without verdicts."""

    def as_json(self) -> dict[str, Any]:
        return {**self.comparison.as_json(), "ranking": self.ranking.as_json() if self.ranking else None}

    def sections(self) -> list[Section]:
        """Return the sections of the HTML page about the verdicts."""
        return [] if self.ranking is None else [_standings(self.ranking)]


def judged(comparison: RunsComparison, ratings: Sequence[Rating], *, samples: int = 10_000) -> JudgedComparison:
    """Add verdicts on answers of the compared runs, possibly along with those of other models.

    Raises DataError if no verdict is about any of the runs.
    """
    if not ratings:
        return JudgedComparison(comparison, None)
    _check_judged(comparison.names, ratings)
    rows = [*comparison.evaluations, *_win_rates(ratings, samples)]
    return JudgedComparison(replace(comparison, evaluations=rows), rank(ratings, EloSettings()))


def _check_judged(names: Sequence[str], ratings: Sequence[Rating]) -> None:
    models = sorted({model for rating in ratings for model in rating.models})
    if not {name for run in names for name in (run, f"{run}:base")} & set(models):
        raise DataError(
            f"the verdicts are on none of these runs, but on {', '.join(models)}",
            hint="Judge answers as RUN or RUN:base; a NAME=FILE is another model.",
        )


def _win_rates(ratings: Sequence[Rating], samples: int) -> list[MetricRow]:
    """Return the win rate of each model of each pair, a tie counting as half a win, with the paired difference."""
    rows = []
    for models, marks in _win_marks(ratings).items():
        one, other = (
            f"{name.removesuffix(':base')}{BASE_SUFFIX}" if name.endswith(":base") else name for name in models
        )
        own, its = marks[models[0]], marks[models[1]]
        rates = {label: fmean(mark for mark, _ in each.values()) for label, each in ((one, own), (other, its))}
        found = difference(own, its, samples=samples)
        pairs = [described(one, other, found, "win rate")] if found else []
        rows.append(MetricRow(f"judged: {one} and {other}", "win rate", rates, pairs))
    return rows


def _win_marks(ratings: Iterable[Rating]) -> dict[tuple[str, str], dict[str, Marks]]:
    """Return the mean score of each model of each pair on each question, over all readable verdicts."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    for rating in ratings:
        if rating.outcome != "unparsed":
            score = rating.score_of_first
            own = score if rating.model_1 == rating.models[0] else 1 - score
            scores.setdefault(rating.models, {}).setdefault(rating.question_id, []).append(own)
    return {
        (one, other): {
            one: {question: (fmean(found), 1.0) for question, found in of_pair.items()},
            other: {question: (1 - fmean(found), 1.0) for question, found in of_pair.items()},
        }
        for (one, other), of_pair in scores.items()
    }


def _standings(ranking: Ranking) -> Section:
    """Return Elo ratings, highest first, with the number of verdicts and the effect of the order of presentation."""
    rows = [
        [one.model, round(one.elo, 1), _interval(one.elo_low, one.elo_high), one.wins, one.losses, one.ties]
        for one in ranking.standings
    ]
    bias, first = ranking.order_bias, ranking.order_bias.first_share
    notes = [f"{ranking.matches:,} verdicts on {ranking.questions:,} questions", f"{ranking.unparsed:,} unparsed"]
    if first is not None:
        notes.append(f"the first-shown answer won {100 * first:.1f}% of the decided ones")
    if bias.both_decided:
        notes.append(f"{bias.contradict:,} of {bias.both_decided:,} decided in both orders contradict each other")
    columns = ["model", "Elo", "95% over questions", "won", "lost", "ties"]
    return Section("Judged answers", columns, rows, f"{'; '.join(notes)}.")


def _interval(low: float | None, high: float | None) -> str | None:
    return None if low is None or high is None else f"{low:.0f} to {high:.0f}"
