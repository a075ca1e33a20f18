"""Whose answers are compared: what `arena judge` and `arena vote` share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from qlora_tui.arena.judge import Contestants
    from qlora_tui.evaluation.questions import Question

AnswerFiles = Annotated[
    list[str], typer.Argument(metavar="ANSWERS...", help="[NAME=]FILE of answers, or RUN or RUN:base. Two or more.")
]
Questions = Annotated[
    Path | None, typer.Option("--questions", help="Question file. Default: the questions in the answer files.")
]
QuestionSet = Annotated[
    str, typer.Option("--set", help="Question set. For each RUN, its answers to this set are used.")
]
USUAL_SET = "vicuna"


def contestants(answers: list[str], question_set: str) -> "Contestants":
    """The answers of each model by its name. Raises UsageError for a name given twice, and what reading raises."""
    from qlora_tui.errors import UsageError
    from qlora_tui.evaluation import predictions

    found: Contestants = {}
    for text in answers:
        name, path = predictions.find(text, question_set)
        if name in found:
            raise UsageError(f"two models are called {name!r}", hint="Give each its own name: NAME=FILE.")
        found[name] = predictions.read_answers(path)
    return found


def questions_of(path: Path | None) -> "list[Question] | None":
    """The questions of a file, or None without one."""
    from qlora_tui.evaluation.questions import read_questions

    return None if path is None else read_questions(path)
