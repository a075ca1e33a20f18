"""`arena vote`: two answers side by side, one key for each vote. The models are named only at the end."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from qlora_tui.terminal import narrate, printable

if TYPE_CHECKING:
    from qlora_tui.arena.judge import Comparison, Contestants
    from qlora_tui.arena.ratings import Outcome
    from qlora_tui.arena.vote import VotingSession
    from qlora_tui.evaluation.questions import Question

_KEYS = "1 first   2 second   3 tie   s skip   u undo   q quit"
_SIDE_BY_SIDE_COLUMNS = 80


def run(contestants: "Contestants", questions: "list[Question] | None", annotator: str, out: Path) -> None:
    """Show ballots until there are no more or the annotator quits; then say what the votes were, by model."""
    from qlora_tui.arena import judge, vote
    from qlora_tui.evaluation import row_log

    ballots = vote.ballots(judge.common_questions(questions, contestants), contestants, annotator)
    with row_log.opened(out) as log, _keys() as next_key:
        session = vote.VotingSession(ballots, annotator, log)
        _hold_the_vote(session, next_key)
        if session.votes == len(ballots):
            _reveal(session)
        else:
            left = len(ballots) - session.votes
            narrate(f"{session.votes} votes stored in {out}, {left} left. Run the same command again to continue")


def _hold_the_vote(session: "VotingSession", next_key: Callable[[], str]) -> None:
    shown: Comparison | None = None
    outcomes: dict[str, Outcome] = {"1": "1", "2": "2", "3": "tie"}
    while session.current is not None:
        if shown is not session.current:
            shown = session.current
            _show(shown, session.votes + 1, len(session.ballots))
        key = next_key()
        if key in outcomes:
            session.vote(outcomes[key])
        elif key == "s":
            session.skip()
        elif key == "u":
            if not session.undo():
                narrate("nothing to undo in this session")
        elif key in {"q", "\x03", "\x04", ""}:
            return
        else:
            narrate(_KEYS)


def _show(ballot: "Comparison", number: int, total: int) -> None:
    """The question, then both answers: side by side where there is room."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from qlora_tui.cli.inert_console import InertConsole

    console = InertConsole()
    console.print(Text(f"\n{number}/{total}  ", style="bold").append(printable(ballot.question.text), style="bold"))
    panels = [
        Panel(Text(printable(answer.text) or "(empty)"), title=title, title_align="left")
        for title, answer in (("1", ballot.answer_1), ("2", ballot.answer_2))
    ]
    if console.width >= _SIDE_BY_SIDE_COLUMNS:
        grid = Table.grid(expand=True)
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        grid.add_row(*panels)
        console.print(grid)
    else:
        console.print(Group(*panels))
    console.print(Text(_KEYS, style="dim"))


def _reveal(session: "VotingSession") -> None:
    """Who was who: wins of each model."""
    from qlora_tui.cli.output import write_table

    wins: Counter[str] = Counter()
    games: Counter[str] = Counter()
    ties = 0
    for rating in session.result():
        games.update(rating.models)
        ties += rating.winner is None
        if rating.winner:
            wins[rating.winner] += 1
    narrate(f"all {session.votes} ballots are voted on, {ties} of them ties")
    write_table(["model", "wins", "ballots"], [[model, str(wins[model]), str(games[model])] for model in sorted(games)])


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """A function that waits for one key: single keys on a terminal, one line a key elsewhere, "" at the end."""
    if not sys.stdin.isatty():
        yield _line_key
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield lambda: sys.stdin.read(1).lower()
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _line_key() -> str:
    line = sys.stdin.readline()
    return line.strip()[:1].lower() or ("?" if line else "")
