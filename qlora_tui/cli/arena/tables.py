"""What the arena found, as tables and a plot for people."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qlora_tui.cli.output import write_table
from qlora_tui.terminal import narrate, printable

if TYPE_CHECKING:
    from qlora_tui.arena.agreement import AnnotatorAgreement, OrderBias
    from qlora_tui.arena.ranking import Ranking
    from qlora_tui.arena.ratio import RelativeScore


@contextmanager
def progress(what: str) -> Iterator[Callable[[float], None] | None]:
    """A bar on stderr while the block lasts, told the share that is done; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress

    from qlora_tui.cli.inert_console import InertConsole

    with Progress(console=InertConsole(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=1.0)
        yield lambda done: bar.update(task, completed=done)


def show_ranking(ranking: "Ranking") -> None:
    """Standings, plot, pairs, order bias and agreement."""
    columns = ["model", "Elo", "± orders", "95% questions", "Bradley-Terry", "95% questions", "W", "L", "T"]
    rows = [
        [
            standing.model,
            f"{standing.elo:.1f}",
            _number(standing.monte_carlo_error, 2),
            _range(standing.elo_low, standing.elo_high),
            _number(standing.bradley_terry, 1),
            _range(standing.bradley_terry_low, standing.bradley_terry_high),
            str(standing.wins),
            str(standing.losses),
            str(standing.ties),
        ]
        for standing in ranking.standings
    ]
    write_table(columns, rows)
    _plot(ranking)
    _show_pairs(ranking)
    how = "one pass in the order of the files" if ranking.fixed_order else f"mean of {ranking.settings.orders:,} orders"
    narrate(f"{ranking.matches:,} matches on {ranking.questions:,} questions; Elo: {how}, K {ranking.settings.k:g}")
    if ranking.unparsed:
        narrate(f"{ranking.unparsed:,} unparsed verdicts are left out; --reparse reads them again")
    if any(standing.bradley_terry is None for standing in ranking.standings):
        narrate("Bradley-Terry has no finite answer: some models never lost to the others, or never won")
    for line in (*_bias_lines(ranking.order_bias), *_annotator_lines(ranking.annotators)):
        narrate(line)


def _plot(ranking: "Ranking") -> None:
    if not sys.stdout.isatty():
        return
    from qlora_tui.cli.inert_console import InertConsole
    from qlora_tui.cli.plot import Interval, interval_plot

    console = InertConsole()
    rows = [
        Interval(
            printable(standing.model, one_line=True),
            standing.elo if standing.elo_low is None else min(standing.elo_low, standing.elo),
            standing.elo,
            standing.elo if standing.elo_high is None else max(standing.elo_high, standing.elo),
        )
        for standing in ranking.standings
    ]
    console.print()
    for line in interval_plot(rows, console.width):
        console.print(line)
    console.print()


def _show_pairs(ranking: "Ranking") -> None:
    """Only on a terminal: a pipe gets the standings alone, and --json everything."""
    if not sys.stdout.isatty():
        return
    columns = ["model", "against", "win rate", "W", "L", "T", "unparsed", "orders agree"]
    write_table(
        columns,
        [
            [
                pair.model_1,
                pair.model_2,
                _percent(pair.win_rate_1),
                str(pair.wins_1),
                str(pair.wins_2),
                str(pair.ties),
                str(pair.unparsed),
                f"{pair.orders_agree}/{pair.both_orders}" if pair.both_orders else "-",
            ]
            for pair in ranking.pairs
        ],
    )


def _bias_lines(bias: "OrderBias") -> list[str]:
    lines = []
    if bias.first_share is not None:
        lines.append(f"order: the first-shown answer wins {_percent(bias.first_share)} of the decided verdicts")
    if bias.both_decided:
        lines.append(
            f"order: of {bias.both_decided:,} comparisons decided in both orders, {bias.contradict:,} contradict "
            f"({bias.first_both_times:,} chose the first both times)"
        )
    return lines


def _annotator_lines(found: "AnnotatorAgreement | None") -> list[str]:
    if found is None or not found.items:
        return []
    lines = [f"annotators: Fleiss kappa {_number(found.fleiss_kappa, 2)} over {found.items:,} comparisons"]
    lines += [
        f"annotators: {ranks.annotator_1 or '(unnamed)'} and {ranks.annotator_2 or '(unnamed)'} rank {ranks.models} "
        f"models with Kendall {_number(ranks.kendall, 2)}, Spearman {_number(ranks.spearman, 2)}"
        for ranks in found.ranks[:10]
    ]
    return lines


def show_agreement(compared: "Mapping[str, AnnotatorAgreement]", others: "AnnotatorAgreement | None") -> None:
    """One line for each annotator against the majority, then how the others agree among themselves."""
    columns = ["annotator", "against", "comparisons", "same verdict", "Fleiss kappa", "models", "Kendall", "Spearman"]
    rows = []
    for name, found in compared.items():
        (ranks,) = found.ranks
        against = ranks.annotator_2 if ranks.annotator_1 == name else ranks.annotator_1
        rows.append(
            [
                name or "(unnamed)",
                against,
                str(found.items),
                _percent(found.unanimous / found.items),
                _number(found.fleiss_kappa, 2),
                str(ranks.models),
                _number(ranks.kendall, 2),
                _number(ranks.spearman, 2),
            ]
        )
    write_table(columns, rows)
    for line in _annotator_lines(others):
        narrate(line)


def show_ratios(scores: "Sequence[RelativeScore]", reference: str) -> None:
    """One line a model, in percent of the reference."""
    columns = ["model", f"% of {reference}", "95% questions", "reference first", "model first", "questions", "unscored"]
    rows = [
        [
            score.model,
            f"{score.pooled:.1f}",
            _range(score.low, score.high, 1),
            _number(score.reference_first, 1),
            _number(score.model_first, 1),
            str(score.questions),
            str(score.unscored),
        ]
        for score in scores
    ]
    write_table(columns, rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def _range(low: float | None, high: float | None, digits: int = 0) -> str:
    return "-" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"
