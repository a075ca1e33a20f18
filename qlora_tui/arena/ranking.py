"""The whole answer to "which is better": every rating method and measure of agreement over one set of ratings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qlora_tui.arena import agreement, bradley_terry, elo
from qlora_tui.arena.matches import matches_of
from qlora_tui.arena.ratings import Rating
from qlora_tui.arena.ratings import majority as majority_of

if TYPE_CHECKING:
    from qlora_tui.arena.matches import Matches

LEVEL = 0.95


@dataclass(frozen=True)
class Standing:
    """One model. Elo and Bradley-Terry on the same scale; intervals at 95 % over draws of the questions."""

    model: str
    matches: int
    wins: int
    losses: int
    ties: int
    elo: float
    monte_carlo_error: float | None
    """Standard error of the Elo mean from playing a finite number of orders; None for one pass."""

    elo_low: float | None
    elo_high: float | None
    bradley_terry: float | None
    """None if the strengths are not all finite: a model never lost or never won."""

    bradley_terry_low: float | None
    bradley_terry_high: float | None


@dataclass(frozen=True)
class Ranking:
    settings: elo.EloSettings
    fixed_order: bool
    matches: int
    questions: int
    unparsed: int
    standings: list[Standing]
    pairs: list[agreement.PairRecord]
    order_bias: agreement.OrderBias
    annotators: agreement.AnnotatorAgreement | None

    def as_json(self) -> dict[str, Any]:
        """Everything, with the rates that follow from the counts."""
        content = asdict(self)
        for pair, record in zip(content["pairs"], self.pairs, strict=True):
            pair["win_rate_1"] = record.win_rate_1
        content["order_bias"]["first_share"] = self.order_bias.first_share
        return content


def rank(
    ratings: Sequence[Rating], settings: elo.EloSettings, *, samples: int = 200, fixed_order: bool = False,
    by_majority: bool = False, progress: elo.Progress | None = None,
) -> Ranking:  # fmt: skip
    """Rank by every method, best Elo first. Agreement is that of the ratings before any majority was formed.

    Raises DataError when nothing can be ranked, or not all models are linked by comparisons.
    """
    played = majority_of(list(ratings)) if by_majority else list(ratings)
    matches = matches_of(played)
    return Ranking(
        settings,
        fixed_order,
        len(matches),
        len(matches.questions),
        sum(rating.outcome == "unparsed" for rating in ratings),
        _standings(matches, settings, samples, fixed_order, progress),
        agreement.pair_records(ratings),
        agreement.order_bias(ratings),
        agreement.annotators(ratings),
    )


def _standings(
    matches: Matches, settings: elo.EloSettings, samples: int, fixed_order: bool, progress: elo.Progress | None
) -> list[Standing]:
    import numpy as np

    over = None if fixed_order else elo.over_orders(matches, settings, progress)
    mean = elo.one_pass(matches, settings) if over is None else over.mean
    interval = (
        elo.bootstrap_interval(matches, settings, samples=samples, level=LEVEL, progress=progress)
        if samples > 1 and not fixed_order and len(matches.questions) > 1
        else None
    )
    fitted = bradley_terry.fit(
        matches, start=settings.start, scale=settings.scale, samples=samples, seed=settings.seed, level=LEVEL
    )
    standings = []
    for index, model in enumerate(matches.models):
        scores = np.concatenate([matches.score[matches.first == index], 1 - matches.score[matches.second == index]])
        standings.append(
            Standing(
                model,
                len(scores),
                int((scores == 1).sum()),
                int((scores == 0).sum()),
                int((scores == 0.5).sum()),
                float(mean[index]),
                None if over is None else float(over.monte_carlo_error[index]),
                None if interval is None else float(interval.low[index]),
                None if interval is None else float(interval.high[index]),
                None if fitted is None else float(fitted.strength[index]),
                None if fitted is None or not fitted.samples else float(fitted.low[index]),
                None if fitted is None or not fitted.samples else float(fitted.high[index]),
            )
        )
    return sorted(standings, key=lambda standing: (-standing.elo, standing.model))
