"""`arena judge`: who judges, an endpoint or a model on this machine, and what is judged."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qlora_tui.cli.arena.answer_files import USUAL_SET, AnswerFiles, Questions, QuestionSet, contestants, questions_of
from qlora_tui.cli.command import ENDPOINT_OPTIONS, LOCAL_OPTIONS
from qlora_tui.cli.options import Json, Yes

if TYPE_CHECKING:
    from qlora_tui.arena.judge_local import LocalJudge
    from qlora_tui.chat.client import Device

Out = Annotated[
    Path, typer.Option("--out", "-o", help="File of verdicts. Comparisons already in the file are skipped.")
]
Protocol = Annotated[
    Literal["three-class", "ten-point"], typer.Option("--protocol", help="Which is better, or two scores.")
]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", min=1, max=1_000_000, help="Maximum number of tokens per verdict.")
]

LocalName = Annotated[
    str | None,
    typer.Option(
        "--judge", rich_help_panel=LOCAL_OPTIONS, metavar="run:NAME|model:MODEL",
        help="A model on this machine in place of an endpoint, at temperature 0: run:NAME, run:NAME:base, or any base "
        "model as model:starter, model:FOLDER or model:owner/name.",
    ),
]  # fmt: skip
DeviceName = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option("--device", rich_help_panel=LOCAL_OPTIONS, help="Where that model is loaded."),
]

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", rich_help_panel=ENDPOINT_OPTIONS, help="The judge's name at the endpoint."),
]
BaseUrl = Annotated[
    str, typer.Option("--base-url", rich_help_panel=ENDPOINT_OPTIONS, help="Address of an OpenAI-compatible endpoint.")
]
KeyVariable = Annotated[
    str,
    typer.Option("--key-variable", rich_help_panel=ENDPOINT_OPTIONS, help="Environment variable that holds the key."),
]
Concurrency = Annotated[
    int, typer.Option("--concurrency", rich_help_panel=ENDPOINT_OPTIONS, min=1, max=64, help="Requests at a time.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", rich_help_panel=ENDPOINT_OPTIONS, min=0.1, help="Seconds for one request.")
]
Retries = Annotated[
    int,
    typer.Option("--retries", rich_help_panel=ENDPOINT_OPTIONS, min=0, help="Tries after the first, for each request."),
]
Temperature = Annotated[
    float, typer.Option("--temperature", rich_help_panel=ENDPOINT_OPTIONS, min=0.0, help="Sampling temperature.")
]
PriceIn = Annotated[
    float | None,
    typer.Option("--price-in", rich_help_panel=ENDPOINT_OPTIONS, min=0.0, help="Price of a million prompt tokens."),
]
PriceOut = Annotated[
    float | None,
    typer.Option("--price-out", rich_help_panel=ENDPOINT_OPTIONS, min=0.0, help="Price of a million written tokens."),
]

_OF_AN_ENDPOINT = {
    "model", "base_url", "key_variable", "concurrency", "timeout_s", "retries", "temperature", "price_in", "price_out"
}  # fmt: skip
"""Options that mean nothing to a model on this machine."""


def register(app: typer.Typer) -> None:
    """Add `judge` to the `arena` group."""
    app.command()(judge)


def judge(
    context: typer.Context,
    answers: AnswerFiles,
    out: Out,
    model: Model = None,
    local: LocalName = None,
    device: DeviceName = "auto",
    base_url: BaseUrl = "https://api.openai.com/v1",
    key_variable: KeyVariable = "OPENAI_API_KEY",
    protocol: Protocol = "three-class",
    questions: Questions = None,
    question_set: QuestionSet = USUAL_SET,
    concurrency: Concurrency = 4,
    timeout_s: Timeout = 120.0,
    retries: Retries = 6,
    temperature: Temperature = 0.2,
    max_tokens: MaxTokens = 1024,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Let a model judge pairs of answers.

    Each pair is judged in both orders.     Every verdict is stored as it arrives. After an interruption, the same
    command continues without repeating requests.
    """
    from qlora_tui.arena.judge_endpoint import EndpointSettings
    from qlora_tui.cli.arena import judging

    asked: EndpointSettings | LocalJudge
    if model is None or local is not None:
        asked = _local_judge(_only_local(context, local), device, max_tokens, yes=yes)
        concurrency = 1
    else:
        asked = EndpointSettings(base_url, model, key_variable, temperature, max_tokens, timeout_s, retries)
    judging.run(
        contestants(answers, question_set), questions_of(questions), asked, protocol, out,
        judging.Prices(price_in, price_out), concurrency=concurrency, yes=yes, as_json=as_json,
    )  # fmt: skip


def _only_local(context: typer.Context, local: str | None) -> str:
    """The --judge that was given. Raises UsageError without one, and for an option that only an endpoint has."""
    from qlora_tui.errors import UsageError

    if local is None:
        raise UsageError(
            "no judge was named", hint="Give --model for an endpoint, or --judge run:NAME, or --judge model:MODEL."
        )
    for option in context.command.params:
        given = option.name in _OF_AN_ENDPOINT and context.get_parameter_source(option.name)
        if given and given.name == "COMMANDLINE":
            raise UsageError(
                f"{option.opts[0]} is for an endpoint, not for a model on this machine", hint="Leave it out."
            )
    return local


def _local_judge(text: str, device: "Device", max_tokens: int, *, yes: bool) -> "LocalJudge":
    """What run:NAME, run:NAME:base or model:MODEL means. Raises UsageError, NotFoundError, ModelError."""
    from qlora_tui.arena import judge_local
    from qlora_tui.errors import UsageError

    kind, _, rest = text.partition(":")
    if kind == "model" and rest:
        from qlora_tui.cli.consent import allow_downloads

        config = judge_local.config_of(rest)
        return judge_local.of_model(
            config, device, max_tokens, allow_download=allow_downloads(config, yes=yes, to_train=False)
        )
    name, colon, side = rest.partition(":")
    if kind != "run" or not name or (colon and side not in {"adapter", "base"}):
        raise UsageError(
            f"--judge {text}: no such judge", hint="Write run:NAME, run:NAME:base for its base model, or model:MODEL."
        )
    return judge_local.of_run(name, "base" if side == "base" else "adapter", device, max_tokens, allow_download=yes)
