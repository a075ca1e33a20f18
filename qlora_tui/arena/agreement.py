"""How far verdicts agree: win rates, both orders of showing, annotators with each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from qlora_tui.arena.ratings import Rating, majority
from qlora_tui.errors import DataError, nearest


@dataclass(frozen=True)
class PairRecord:
    """What happened between two models. Models in alphabetical order."""

    model_1: str
    model_2: str
    wins_1: int
    wins_2: int
    ties: int
    unparsed: int
    both_orders: int
    """Questions judged in both orders by the same annotator, both with a readable verdict."""

    orders_agree: int
    """Of those, the ones with the same result whichever was shown first."""

    @property
    def win_rate_1(self) -> float | None:
        """Share of the readable verdicts that `model_1` won, a tie being half a win."""
        games = self.wins_1 + self.wins_2 + self.ties
        return (self.wins_1 + self.ties / 2) / games if games else None


@dataclass(frozen=True)
class OrderBias:
    """What the place of an answer does to the verdict."""

    first_wins: int
    second_wins: int
    ties: int
    unparsed: int
    both_orders: int
    both_decided: int
    contradict: int
    """Of the questions decided in both orders, those where another model won the second time."""

    first_both_times: int
    """Of those, the ones where whichever was shown first won."""

    @property
    def first_share(self) -> float | None:
        """How often the answer shown first wins, of the verdicts for one of the two. Without bias: 0.5."""
        decided = self.first_wins + self.second_wins
        return self.first_wins / decided if decided else None


@dataclass(frozen=True)
class AnnotatorAgreement:
    """Two annotators, or all (Fleiss). Rank correlations compare the order in which they rank the models."""

    fleiss_kappa: float | None
    items: int
    """Questions of a pair of models that at least two annotators rated."""

    unanimous: int
    """Of those, the ones that all of them gave the same verdict."""

    ranks: list[RankAgreement]


@dataclass(frozen=True)
class RankAgreement:
    annotator_1: str
    annotator_2: str
    models: int
    kendall: float | None
    spearman: float | None


def pair_records(ratings: Sequence[Rating]) -> list[PairRecord]:
    """One record for each pair of models, in alphabetical order."""
    of_pair: dict[tuple[str, str], list[Rating]] = defaultdict(list)
    for rating in ratings:
        of_pair[rating.models].append(rating)
    records = []
    for pair, among in sorted(of_pair.items()):
        outcomes = Counter("unparsed" if rating.outcome == "unparsed" else rating.winner for rating in among)
        both = list(_in_both_orders(among))
        agree = sum(one.winner == other.winner for one, other in both)
        records.append(
            PairRecord(
                *pair, outcomes[pair[0]], outcomes[pair[1]], outcomes[None], outcomes["unparsed"], len(both), agree
            )
        )
    return records


def order_bias(ratings: Sequence[Rating]) -> OrderBias:
    """How often the first-shown answer wins, and how often the two orders contradict each other."""
    outcomes = Counter(rating.outcome for rating in ratings)
    both = list(_in_both_orders(ratings))
    decided = [(one, other) for one, other in both if one.winner and other.winner]
    contradict = [(one, other) for one, other in decided if one.winner != other.winner]
    first = sum(one.outcome == "1" for one, _ in contradict)
    return OrderBias(
        outcomes["1"], outcomes["2"], outcomes["tie"], outcomes["unparsed"], len(both), len(decided), len(contradict),
        first,
    )  # fmt: skip


def _in_both_orders(ratings: Iterable[Rating]) -> Iterable[tuple[Rating, Rating]]:
    """Readable verdicts of one annotator on one question in one order, with those in the other."""
    seen: dict[tuple[str, str, str, str], Rating] = {}
    for rating in ratings:
        if rating.outcome == "unparsed":
            continue
        other = seen.pop((rating.question_id, rating.annotator, rating.model_2, rating.model_1), None)
        if other is not None:
            yield other, rating
        else:
            seen[rating.question_id, rating.annotator, rating.model_1, rating.model_2] = rating


def annotators(ratings: Sequence[Rating]) -> AnnotatorAgreement | None:
    """Agreement between annotators, or None when there are fewer than two.

    An annotator who saw both orders counts once: as the model that won in total, else as a tie.
    """
    names = sorted({rating.annotator for rating in ratings})
    if len(names) < 2:
        return None
    balance: dict[tuple[str, str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for rating in ratings:
        if rating.outcome != "unparsed":
            won = rating.score_of_first * 2 - 1
            balance[rating.question_id, *rating.models][rating.annotator] += (
                won if rating.model_1 == rating.models[0] else -won
            )
    items = [Counter((value > 0) - (value < 0) for value in votes.values()) for votes in balance.values()]
    items = [votes for votes in items if votes.total() > 1]
    unanimous = sum(len(votes) == 1 for votes in items)
    return AnnotatorAgreement(fleiss_kappa(items), len(items), unanimous, _ranks(ratings, names))


def with_majority(ratings: Sequence[Rating], annotator: str, judges: Sequence[str] = ()) -> AnnotatorAgreement:
    """How one annotator, such as a judge, agrees with what most of the others say; `judges` are not among those.

    Only questions of a pair that both sides rated count, for the ranks as well. The majority of an even split is a tie.
    Raises DataError, naming the nearest, for an annotator who rated nothing, and when there is nothing in common.
    """
    names = sorted({rating.annotator for rating in ratings})
    if annotator not in names:
        raise DataError(f"no rating by {annotator!r}", hint=nearest(annotator, names))
    own = [one for one in ratings if one.annotator == annotator and one.outcome != "unparsed"]
    others = [one for one in ratings if one.annotator not in {annotator, *judges}]
    if not others:
        raise DataError(f"{annotator!r} is the only annotator", hint="Add the ratings of other annotators.")
    several = f"majority of {len({other.annotator for other in others})}"
    most = [replace(one, annotator=several) for one in majority(others)]
    common = {_item(one) for one in own} & {_item(one) for one in most}
    if not common:
        raise DataError(
            f"{annotator!r} and the others have no question of the same two models in common",
            hint=f"It compared {_models(own)}; they compared {_models(others)}. --questions maps texts to ids.",
        )
    found = annotators([one for one in (*own, *most) if _item(one) in common])
    assert found is not None
    return found


def _item(rating: Rating) -> tuple[str, str, str]:
    return (rating.question_id, *rating.models)


def _models(ratings: Iterable[Rating]) -> str:
    return ", ".join(sorted({model for rating in ratings for model in rating.models})) or "nothing"


def fleiss_kappa(items: Sequence[Counter[int]]) -> float | None:
    """Fleiss' kappa (Psychological Bulletin 76, 1971) of items with their counts of each verdict.

    The number of votes may differ between items, each of at least two. None without items, or when chance alone would
    agree every time.
    """
    if not items:
        return None
    votes = sum(item.total() for item in items)
    observed = sum(
        (sum(count * count for count in item.values()) - item.total()) / (item.total() * (item.total() - 1))
        for item in items
    ) / len(items)
    totals: Counter[int] = Counter()
    for item in items:
        totals.update(item)
    by_chance = sum((count / votes) ** 2 for count in totals.values())
    return None if by_chance >= 1 else (observed - by_chance) / (1 - by_chance)


def _ranks(ratings: Sequence[Rating], names: list[str]) -> list[RankAgreement]:
    scores = {name: _mean_scores(rating for rating in ratings if rating.annotator == name) for name in names}
    found = []
    for one, other in combinations(names, 2):
        models = sorted(scores[one].keys() & scores[other].keys())
        left, right = [scores[one][model] for model in models], [scores[other][model] for model in models]
        found.append(RankAgreement(one, other, len(models), kendall_tau(left, right), spearman_rho(left, right)))
    return found


def _mean_scores(ratings: Iterable[Rating]) -> dict[str, float]:
    scores: dict[str, list[float]] = defaultdict(list)
    for rating in ratings:
        if rating.outcome != "unparsed":
            scores[rating.model_1].append(rating.score_of_first)
            scores[rating.model_2].append(1 - rating.score_of_first)
    return {model: sum(values) / len(values) for model, values in scores.items()}


def kendall_tau(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Kendall's tau-b, which corrects for ties; None when one side ranks nothing."""
    concordance = ties_left = ties_right = 0
    pairs = list(combinations(range(len(left)), 2))
    for one, other in pairs:
        by_left, by_right = _sign(left[one] - left[other]), _sign(right[one] - right[other])
        concordance += by_left * by_right
        ties_left += by_left == 0
        ties_right += by_right == 0
    norm = ((len(pairs) - ties_left) * (len(pairs) - ties_right)) ** 0.5
    return concordance / norm if norm else None


def spearman_rho(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties with their mean rank; None when one side ranks nothing."""
    ranks_left, ranks_right = _mean_ranks(left), _mean_ranks(right)
    centre = (len(left) + 1) / 2
    together = sum((one - centre) * (other - centre) for one, other in zip(ranks_left, ranks_right, strict=True))
    norm = (sum((rank - centre) ** 2 for rank in ranks_left) * sum((rank - centre) ** 2 for rank in ranks_right)) ** 0.5
    return together / norm if norm else None


def _mean_ranks(values: Sequence[float]) -> list[float]:
    return [
        (sum(other < value for other in values) + sum(other <= value for other in values) + 1) / 2 for value in values
    ]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
