"""`arena`: judge answers, vote on them blind, and rank the models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qlora_tui.cli.options import Json, Yes
from qlora_tui.terminal import narrate

if TYPE_CHECKING:
    from qlora_tui.evaluation.judge import Contestants
    from qlora_tui.evaluation.questions import Question
    from qlora_tui.evaluation.ratings import Rating

app = typer.Typer(no_args_is_help=True, help="Judge answers, vote on them blind, and rank the models.")

Ratings = Annotated[
    list[Path],
    typer.Argument(metavar="RATINGS...", help="csv with question_id, model_1, model_2, outcome; or verdicts as jsonl."),
]
AnswerFiles = Annotated[
    list[str], typer.Argument(metavar="ANSWERS...", help="[NAME=]FILE of answers, or RUN or RUN:base. Two or more.")
]
Questions = Annotated[
    Path | None, typer.Option("--questions", help="Question file; left out: the questions that the answers hold.")
]
QuestionSet = Annotated[str, typer.Option("--set", help="Question set whose answers a RUN means.")]
Owners = Annotated[
    list[str] | None,
    typer.Option("--answers", metavar="NAME=FILE", help="Answers that tell which model an answer id is. Repeatable."),
]
Only = Annotated[list[str] | None, typer.Option("--only", help="Rank only these models. Repeatable.")]
DuplicateVerdicts = Annotated[
    Literal["refuse", "first", "last", "keep"],
    typer.Option("--duplicates", help="What a second verdict on the same question, order and annotator means."),
]
Reparse = Annotated[bool, typer.Option("--reparse", help="Read unparsed verdicts again from what the judge wrote.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything random.")]

_OF_AN_ENDPOINT = {
    "model", "base_url", "key_variable", "concurrency", "timeout_s", "retries", "temperature", "price_in", "price_out"
}  # fmt: skip
"""Options that mean nothing to a run that judges."""


@app.command()
def elo(
    ratings: Ratings,
    k: Annotated[float, typer.Option("--k", min=1e-6, help="How far one match moves a rating.")] = 32.0,
    start: Annotated[float, typer.Option("--start", help="The rating everyone starts with.")] = 1000.0,
    scale: Annotated[float, typer.Option("--scale", min=1e-6, help="The difference that means odds of ten to one.")] = (
        400.0
    ),
    orders: Annotated[int, typer.Option("--orders", min=1, help="Random orders to average over.")] = 10_000,
    seed: Seed = 0,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", min=0, help="Draws of the questions for the interval; 0: none.")
    ] = 200,
    fixed_order: Annotated[bool, typer.Option("--fixed-order", help="One pass, in the order of the files.")] = False,
    majority: Annotated[
        bool, typer.Option("--majority", help="One match a question and pair: what most verdicts say.")
    ] = False,
    reparse: Reparse = False,
    only: Only = None,
    duplicates: DuplicateVerdicts = "refuse",
    answers: Owners = None,
    as_json: Json = False,
) -> None:
    """Rank models by ratings: Elo over random orders, Bradley-Terry, win rates, order bias, agreement."""
    from qlora_tui.cli import arena_tables
    from qlora_tui.cli.output import write_json
    from qlora_tui.evaluation.elo import EloSettings
    from qlora_tui.evaluation.ranking import rank

    found = _read(ratings, duplicates, answers, only, reparse=reparse)
    settings = EloSettings(k, start, scale, orders, seed)
    with arena_tables.progress("playing") as progress:
        ranking = rank(
            found, settings, samples=bootstrap, fixed_order=fixed_order, by_majority=majority, progress=progress
        )
    if as_json:
        write_json(ranking.as_json())
    else:
        arena_tables.show_ranking(ranking)


@app.command()
def ratio(
    ratings: Ratings,
    reference: Annotated[str, typer.Option("--reference", "-r", help="The model that counts as 100 %.")],
    seed: Seed = 0,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=1, help="Draws of the questions.")] = 2000,
    only: Only = None,
    duplicates: DuplicateVerdicts = "refuse",
    answers: Owners = None,
    as_json: Json = False,
) -> None:
    """Scores as a percentage of a reference model's, from ten-point verdicts."""
    from dataclasses import asdict

    from qlora_tui.cli import arena_tables
    from qlora_tui.cli.output import write_json
    from qlora_tui.evaluation.ratio import relative_scores

    found = _read(ratings, duplicates, answers, only)
    scores = relative_scores(found, reference, samples=bootstrap, seed=seed)
    if as_json:
        write_json({"reference": reference, "scores": [asdict(score) for score in scores]})
    else:
        arena_tables.show_ratios(scores, reference)


@app.command()
def csv(
    ratings: Ratings, only: Only = None, reparse: Reparse = False, duplicates: DuplicateVerdicts = "refuse",
    answers: Owners = None,
) -> None:  # fmt: skip
    """Write ratings to stdout as csv: question_id, model_1, model_2, outcome, annotator."""
    from qlora_tui.evaluation.ratings import to_csv

    typer.echo(to_csv(_read(ratings, duplicates, answers, only, reparse=reparse)), nl=False)


@app.command()
def judge(
    context: typer.Context,
    answers: AnswerFiles,
    out: Annotated[Path, typer.Option("--out", "-o", help="File of verdicts; what it holds is not asked again.")],
    model: Annotated[str | None, typer.Option("--model", "-m", help="The judge's name at the endpoint.")] = None,
    local: Annotated[
        str | None,
        typer.Option(
            "--judge", metavar="run:NAME", help="A run in place of an endpoint, at temperature 0; or run:NAME:base."
        ),
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where a run that judges is loaded.")
    ] = "auto",
    base_url: Annotated[str, typer.Option("--base-url", help="Address of an OpenAI-compatible endpoint.")] = (
        "https://api.openai.com/v1"
    ),
    key_variable: Annotated[
        str, typer.Option("--key-variable", help="Environment variable that holds the key.")
    ] = "OPENAI_API_KEY",
    protocol: Annotated[
        Literal["three-class", "ten-point"], typer.Option("--protocol", help="Which is better, or two scores.")
    ] = "three-class",
    questions: Questions = None,
    question_set: QuestionSet = "vicuna",
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=64, help="Requests at a time.")] = 4,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds for one request.")] = 120.0,
    retries: Annotated[int, typer.Option("--retries", min=0, help="Tries after the first, for each request.")] = 6,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0)] = 0.2,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Tokens of one verdict.")] = 1024,
    price_in: Annotated[
        float | None, typer.Option("--price-in", min=0.0, help="Price of a million prompt tokens.")
    ] = None,
    price_out: Annotated[
        float | None, typer.Option("--price-out", min=0.0, help="Price of a million written tokens.")
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Let a judge compare answers, each pair in both orders.

    Every verdict is kept as it arrives; the same command goes on after an interruption and pays for nothing twice.
    """
    from qlora_tui.cli import arena_judge
    from qlora_tui.evaluation.judge_endpoint import EndpointSettings

    asked: EndpointSettings | arena_judge.LocalJudge
    if model is None or local is not None:
        asked = arena_judge.local_judge(_only_local(context, local), device, max_tokens, allow_download=yes)
        concurrency = 1
    else:
        asked = EndpointSettings(base_url, model, key_variable, temperature, max_tokens, timeout_s, retries)
    contestants = _contestants(answers, question_set)
    arena_judge.run(
        contestants, _questions(questions), asked, protocol, out, arena_judge.Prices(price_in, price_out),
        concurrency=concurrency, yes=yes, as_json=as_json,
    )  # fmt: skip


@app.command()
def vote(
    answers: AnswerFiles,
    out: Annotated[Path, typer.Option("--out", "-o", help="File of votes; votes that it holds are not asked again.")],
    annotator: Annotated[str, typer.Option("--annotator", "-a", help="Who votes.")],
    questions: Questions = None,
    question_set: QuestionSet = "vicuna",
) -> None:
    """Vote blind: two answers, sides at random. Keys: 1, 2, 3 (tie), s (skip), u (undo), q (quit)."""
    from qlora_tui.cli import arena_vote

    arena_vote.run(_contestants(answers, question_set), _questions(questions), annotator, out)


def _only_local(context: typer.Context, local: str | None) -> str:
    """The --judge that was given. Raises UsageError without one, and for an option that only an endpoint has."""
    from qlora_tui.errors import UsageError

    if local is None:
        raise UsageError("no judge was named", hint="Give --model for an endpoint, or --judge run:NAME.")
    for option in context.command.params:
        given = option.name in _OF_AN_ENDPOINT and context.get_parameter_source(option.name)
        if given and given.name == "COMMANDLINE":
            raise UsageError(f"{option.opts[0]} is for an endpoint, not for a run that judges", hint="Leave it out.")
    return local


def _read(
    paths: list[Path], duplicates: Literal["refuse", "first", "last", "keep"], answers: list[str] | None,
    models: list[str] | None, *, reparse: bool = False,
) -> "list[Rating]":  # fmt: skip
    from qlora_tui.evaluation import predictions, ratings

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


def _contestants(answers: list[str], question_set: str) -> "Contestants":
    from qlora_tui.errors import UsageError
    from qlora_tui.evaluation import predictions

    found: Contestants = {}
    for text in answers:
        name, path = predictions.find(text, question_set)
        if name in found:
            raise UsageError(f"two models are called {name!r}", hint="Give each its own name: NAME=FILE.")
        found[name] = predictions.read_answers(path)
    return found


def _questions(path: Path | None) -> "list[Question] | None":
    from qlora_tui.evaluation.questions import read_questions

    return None if path is None else read_questions(path)
