"""`eval`: measure a run compared with its base model."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from qlora_tui.cli import completion
from qlora_tui.cli.command import ANSWER_OPTIONS, Noun
from qlora_tui.cli.measuring import Common, measure, measurement, stem
from qlora_tui.cli.options import Json, Yes
from qlora_tui.terminal import narrate

Split = Annotated[str | None, typer.Option("--split", help="Split of the dataset, such as test or train[:100].")]

app = Noun("Evaluate a run against its base model.")


@app.command()
@measurement()
def loss(
    common: Common,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", autocompletion=completion.datasets, help="Dataset to measure on. Default: the held-out rows."
        ),
    ] = None,
    split: Split = None,
) -> None:
    """Measure loss and perplexity per token."""
    from qlora_tui.evaluation.tasks import LossTask

    name = f"loss-{stem(data) if data else 'held-out'}"
    measure(common, LossTask(data=_absolute(data) if data else None, split=split, **common.task(name)))


@app.command()
@measurement(batch=16)
def answers(
    common: Common,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", autocompletion=completion.datasets, help="Questions with expected answers: any dataset."
        ),
    ],
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", rich_help_panel=ANSWER_OPTIONS, min=1, help="Longest answer.")
    ] = 64,
    split: Split = None,
) -> None:
    """Score greedy answers: exact match, F1, ROUGE-L and chrF."""
    from qlora_tui.evaluation.tasks import AnswersTask

    name = f"answers-{stem(data)}"
    measure(common, AnswersTask(data=_absolute(data), split=split, max_tokens=max_tokens, **common.task(name)))


@app.command()
@measurement()
def mmlu(
    common: Common,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Rows with subject, input and output (A to D).")],
) -> None:
    """Measure multiple-choice accuracy per subject.

    Compares the logits of the four letters. The file contains the prompts; see `eval mmlu-file`.
    """
    from qlora_tui.evaluation.tasks import MmluTask

    measure(common, MmluTask(file=str(file.absolute()), **common.task(f"mmlu-{stem(str(file))}")))


@app.command("mmlu-file")
def mmlu_file(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    shots: Annotated[int, typer.Option("--shots", min=0, max=5, help="Number of examples before each question.")] = 5,
    split: Annotated[Literal["validation", "test"], typer.Option("--split", help="1,531 or 14,042 questions.")] = (
        "validation"
    ),
    source: Annotated[str, typer.Option("--source", help="Hub dataset with MMLU's columns and splits.")] = "cais/mmlu",
    config: Annotated[str, typer.Option("--config", help="Its configuration: all subjects, or one.")] = "all",
    revision: Annotated[str | None, typer.Option("--revision", help="Hub branch, tag or commit.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Download MMLU as a file for `eval mmlu`.

    The file also works as training.mmlu_file.
    """
    from qlora_tui.cli.data_sources import consent
    from qlora_tui.cli.output import write_json
    from qlora_tui.evaluation.mmlu_rows import write_file

    count = write_file(
        out, shots=shots, split=split, consent=consent(yes), source=source, config=config, revision=revision
    )
    if as_json:
        write_json({"file": str(out), "questions": count, "shots": shots})
    narrate(f"{count:,} questions with {shots} examples each in {out}")


@app.command("questions")
def question_sets(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="vicuna or oa. Default: list the sets.")] = None,
    out: Annotated[Path | None, typer.Argument(metavar="[OUT]", help="File to write. Default: NAME.jsonl.")] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Download a question set of the QLoRA paper for `eval generate`."""
    from qlora_tui.cli.data_sources import consent
    from qlora_tui.cli.output import write_json, write_line
    from qlora_tui.errors import NotFoundError, nearest
    from qlora_tui.evaluation.question_sets import SETS, write_file

    if name is None:
        facts = [
            {"name": key, "title": one.title, "questions": one.questions, "hub_id": one.hub_id, "licence": one.licence}
            for key, one in SETS.items()
        ]
        if as_json:
            write_json({"sets": facts})
        for one in [] if as_json else facts:
            write_line(f"{one['name']}: {one['title']}; {one['questions']}; {one['hub_id']}; licence: {one['licence']}")
        return
    if name not in SETS:
        raise NotFoundError(f"no question set named {name!r}", hint=nearest(name, list(SETS)))
    target = out or Path(f"{name}.jsonl")
    count = write_file(name, target, consent=consent(yes))
    if as_json:
        write_json({"file": str(target), "questions": count, "licence": SETS[name].licence})
    narrate(f"{count:,} questions in {target}; licence: {SETS[name].licence}")


@app.command()
@measurement(side="adapter")
def generate(
    common: Common,
    questions: Annotated[
        str,
        typer.Argument(metavar="QUESTIONS", help="vicuna, oa, jsonl with question_id and text, .txt, or a dataset."),
    ],
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", rich_help_panel=ANSWER_OPTIONS, min=0, max=5, help="Sampling temperature; 0: greedy."
        ),
    ] = 0.7,
    top_p: Annotated[
        float, typer.Option("--top-p", rich_help_panel=ANSWER_OPTIONS, min=0.01, max=1, help="Nucleus sampling.")
    ] = 0.9,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", rich_help_panel=ANSWER_OPTIONS, min=1, help="Longest answer.")
    ] = 512,
    seed: Annotated[
        int, typer.Option("--seed", rich_help_panel=ANSWER_OPTIONS, min=0, help="Same seed and settings, same answers.")
    ] = 0,
    split: Split = None,
) -> None:
    """Generate answers to a question file.

    An interrupted command continues where it stopped.
    """
    from qlora_tui.chat.protocol import Sampling
    from qlora_tui.evaluation.tasks import GenerateTask

    sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens)
    source, asked = _absolute(_question_file(questions, yes=common.yes)), common.task(stem(questions))
    measure(common, GenerateTask(questions=source, split=split, sampling=sampling, seed=seed, **asked))


@app.command()
@measurement()
def harness(
    common: Common,
    tasks: Annotated[list[str], typer.Argument(metavar="TASK...", help="Tasks of lm-eval.")],
    shots: Annotated[int | None, typer.Option("--shots", min=0, help="Examples before each question.")] = None,
    include: Annotated[Path | None, typer.Option("--include", help="Folder with task files of your own.")] = None,
) -> None:
    """Run tasks of lm-eval.

    Needs an extra: pip install 'qlora-tui[eval]'.
    """
    from qlora_tui.evaluation.tasks import HarnessTask

    folder, asked = str(include.absolute()) if include else None, common.task(f"harness-{stem(tasks[0])}")
    measure(common, HarnessTask(tasks=tuple(tasks), shots=shots, include=folder, **asked))


@app.command()
def quant(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", autocompletion=completion.models, help="starter, a folder or a hub id.")
    ],
    text: Annotated[Path | None, typer.Option("--text", help="Also measure the perplexity of this text.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also show the quantization error of every layer.")] = False,
    as_json: Json = False,
    yes: Yes = False,
) -> None:
    """Compare the accuracy of quantization schemes for a model.

    Measures bits per parameter, error per layer and, with --text, perplexity.     The result is stored and shown in
    Setup next to the quantization setting of this model.
    """
    from qlora_tui.cli.output import write_json
    from qlora_tui.evaluation import process, quantization_errors

    found: dict[str, Any] = {}
    for message in process.study_quantization(model, text.absolute() if text else None, allow_download=yes):
        if message["kind"] == "stage":
            narrate(message["text"])
        found = message
    quantization_errors.write(model, found)
    if as_json:
        write_json({key: value for key, value in found.items() if key != "kind"})
    else:
        _show_study(found, layers)


def _show_study(found: dict[str, Any], layers: bool) -> None:
    from qlora_tui.cli.measuring import number
    from qlora_tui.cli.output import write_table

    exact, schemes = found["perplexity"], found["schemes"]
    rows = [
        [
            one["scheme"], f"{one['bits_per_parameter']:.3f}", f"{one['relative_error']:.5%}",
            f"{one['normal_relative_error']:.5%}", number(one["perplexity"]),
            f"{one['perplexity'] / exact - 1:+.2%}" if exact else "-",
        ]
        for one in schemes
    ]  # fmt: skip
    write_table(["stored as", "bits a parameter", "relative error", "on normal weights", "perplexity", "change"], rows)
    if layers:
        names = [one["scheme"] for one in schemes]
        errors = [[layer, *(f"{one['layers'][layer]:.5%}" for one in schemes)] for layer in schemes[0]["layers"]]
        write_table(["layer", *names], errors)
    if exact is not None:
        narrate(f"perplexity with exact weights: {exact:.4f}")


def _question_file(questions: str, *, yes: bool) -> str:
    """Return the local file of a known question set, downloading it if needed; return anything else unchanged."""
    from qlora_tui.cli.data_sources import consent
    from qlora_tui.evaluation.question_sets import SETS, stored

    if questions not in SETS or Path(questions).exists():
        return questions
    return str(stored(questions, consent=consent(yes)))


def _absolute(data: str) -> str:
    """A path that exists made absolute; names of sets and hub ids as they are."""
    return str(Path(data).absolute()) if Path(data).exists() else data
