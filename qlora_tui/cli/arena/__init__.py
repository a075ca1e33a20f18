"""`arena`: judge answers, vote on them blind, and rank the models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qlora_tui.cli.arena import judge_command
from qlora_tui.cli.arena.answer_files import USUAL_SET, AnswerFiles, Questions, QuestionSet, contestants, questions_of
from qlora_tui.cli.command import RATING_OPTIONS, VERDICT_OPTIONS, Noun
from qlora_tui.cli.options import Json
from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.arena.ratings import Rating

app = Noun("Judge answers, vote blind, and rank models.")
judge_command.register(app)

Ratings = Annotated[
    list[Path],
    typer.Argument(metavar="RATINGS...", help="csv with question_id, model_1, model_2, outcome; or verdicts as jsonl."),
]
Owners = Annotated[
    list[str] | None,
    typer.Option(
        "--answers",
        rich_help_panel=VERDICT_OPTIONS,
        metavar="NAME=FILE",
        help="Answers that tell which model an answer id is. Repeatable.",
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", rich_help_panel=VERDICT_OPTIONS, help="Rank only these models. Repeatable."),
]
DuplicateVerdicts = Annotated[
    Literal["refuse", "first", "last", "keep"],
    typer.Option(
        "--duplicates",
        rich_help_panel=VERDICT_OPTIONS,
        help="What a second verdict on the same question, order and annotator means.",
    ),
]
Reparse = Annotated[
    bool,
    typer.Option(
        "--reparse", rich_help_panel=VERDICT_OPTIONS, help="Read unparsed verdicts again from what the judge wrote."
    ),
]
Seed = Annotated[int, typer.Option("--seed", rich_help_panel=RATING_OPTIONS, min=0, help="Seed of everything random.")]


@app.command()
def elo(
    ratings: Ratings,
    k: Annotated[
        float,
        typer.Option("--k", rich_help_panel=RATING_OPTIONS, min=1e-6, help="Largest change of a rating by one match."),
    ] = 32.0,
    start: Annotated[float, typer.Option("--start", rich_help_panel=RATING_OPTIONS, help="Initial rating.")] = 1000.0,
    scale: Annotated[
        float,
        typer.Option(
            "--scale", rich_help_panel=RATING_OPTIONS, min=1e-6, help="The difference that means odds of ten to one."
        ),
    ] = (400.0),
    orders: Annotated[
        int, typer.Option("--orders", rich_help_panel=RATING_OPTIONS, min=1, help="Random orders to average over.")
    ] = 10_000,
    seed: Seed = 0,
    bootstrap: Annotated[
        int,
        typer.Option(
            "--bootstrap",
            rich_help_panel=RATING_OPTIONS,
            min=0,
            help="Draws of the questions for the interval; 0: none.",
        ),
    ] = 200,
    fixed_order: Annotated[
        bool, typer.Option("--fixed-order", rich_help_panel=RATING_OPTIONS, help="One pass, in the order of the files.")
    ] = False,
    majority: Annotated[
        bool,
        typer.Option(
            "--majority", rich_help_panel=RATING_OPTIONS, help="One match a question and pair: what most verdicts say."
        ),
    ] = False,
    reparse: Reparse = False,
    only: Only = None,
    duplicates: DuplicateVerdicts = "refuse",
    answers: Owners = None,
    as_json: Json = False,
) -> None:
    """Rank models by Elo and Bradley-Terry ratings."""
    from qlora_tui.arena.elo import EloSettings
    from qlora_tui.arena.ranking import rank
    from qlora_tui.cli.arena import tables
    from qlora_tui.cli.output import write_json

    found = _read(ratings, duplicates, answers, only, reparse=reparse)
    settings = EloSettings(k, start, scale, orders, seed)
    with tables.progress("playing") as progress:
        ranking = rank(
            found, settings, samples=bootstrap, fixed_order=fixed_order, by_majority=majority, progress=progress
        )
    if as_json:
        write_json(ranking.as_json())
    else:
        tables.show_ranking(ranking)


@app.command()
def ratio(
    ratings: Ratings,
    reference: Annotated[str, typer.Option("--reference", "-r", help="The model that counts as 100 %.")],
    seed: Seed = 0,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", rich_help_panel=RATING_OPTIONS, min=1, help="Draws of the questions.")
    ] = 2000,
    only: Only = None,
    duplicates: DuplicateVerdicts = "refuse",
    answers: Owners = None,
    as_json: Json = False,
) -> None:
    """Compute scores relative to a reference model, in percent.

    Needs ten-point verdicts.
    """
    from dataclasses import asdict

    from qlora_tui.arena.ratio import relative_scores
    from qlora_tui.cli.arena import tables
    from qlora_tui.cli.output import write_json

    found = _read(ratings, duplicates, answers, only)
    scores = relative_scores(found, reference, samples=bootstrap, seed=seed)
    if as_json:
        write_json({"reference": reference, "scores": [asdict(score) for score in scores]})
    else:
        tables.show_ratios(scores, reference)


@app.command()
def agreement(
    ratings: Ratings,
    judges: Annotated[
        list[str] | None,
        typer.Option(
            "--judge",
            metavar="NAME",
            help="Compare this annotator with the majority of the annotators that are not judges. Repeatable. "
            "Default: everyone with the majority of the others.",
        ),
    ] = None,
    questions: Questions = None,
    only: Only = None,
    reparse: Reparse = False,
    duplicates: DuplicateVerdicts = "refuse",
    answers: Owners = None,
    as_json: Json = False,
) -> None:
    """Measure the agreement of judges and human annotators."""
    from dataclasses import asdict

    from qlora_tui.arena.agreement import annotators, with_majority
    from qlora_tui.arena.ratings import known_by_id
    from qlora_tui.cli.arena import tables
    from qlora_tui.cli.output import write_json

    found = known_by_id(_read(ratings, duplicates, answers, only, reparse=reparse), questions_of(questions) or [])
    named = judges or sorted({rating.annotator for rating in found})
    compared = {name: with_majority(found, name, judges or ()) for name in named}
    others = annotators([rating for rating in found if rating.annotator not in (judges or ())])
    if as_json:
        among = {name: asdict(one) for name, one in compared.items()}
        write_json({"with_majority": among, "among_others": asdict(others) if others else None})
    else:
        tables.show_agreement(compared, others)


@app.command()
def csv(
    ratings: Ratings, only: Only = None, reparse: Reparse = False, duplicates: DuplicateVerdicts = "refuse",
    answers: Owners = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Write ratings to stdout as CSV."""
    from qlora_tui.arena.ratings import as_row, to_csv
    from qlora_tui.cli.output import write_json, write_text

    found = _read(ratings, duplicates, answers, only, reparse=reparse)
    if as_json:
        write_json({"ratings": [as_row(rating) for rating in found]})
    else:
        write_text(to_csv(found))


@app.command()
def vote(
    answers: AnswerFiles,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File of votes. Comparisons already in the file are skipped.")
    ],
    annotator: Annotated[str, typer.Option("--annotator", "-a", help="Name of the voter.")],
    questions: Questions = None,
    question_set: QuestionSet = USUAL_SET,
) -> None:
    """Vote on pairs of answers without knowing their models.

    Keys: 1 and 2 (the better answer), 3 (tie), s (skip), u (undo), q (quit).
    """
    from qlora_tui.cli.arena import voting

    voting.run(contestants(answers, question_set), questions_of(questions), annotator, out)


def _read(
    paths: list[Path], duplicates: Literal["refuse", "first", "last", "keep"], answers: list[str] | None,
    models: list[str] | None, *, reparse: bool = False,
) -> "list[Rating]":  # fmt: skip
    from qlora_tui.arena import ratings
    from qlora_tui.evaluation import predictions

    owners: ratings.Owners = {}
    for text in answers or []:
        name, path = predictions.find(text, "")
        for answer in predictions.read_answers(path).values():
            owners.setdefault(answer.id, set()).add(name)
    found = ratings.read(paths, duplicates=duplicates, owners=owners)
    disputed = ratings.disputed_files(found)
    if disputed:
        more = f" and {len(disputed) - 1} more" if len(disputed) > 1 else ""
        narrate(f"warning: {disputed[0]}{more}: gives answers to other models than the files before")
        narrate("hint: the two models in its name may be swapped; --answers NAME=FILE tells whose answers they are")
    found = ratings.reparsed(found) if reparse else found
    return ratings.only(found, models) if models else found
