"""The options and arguments that several commands share, each declared once."""

from typing import Annotated

import typer

from qlora_tui.cli import completion
from qlora_tui.cli.command import RUN_OPTIONS

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", autocompletion=completion.runs, help="Name of a run; `qlora-tui runs list` shows them."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
JsonEvents = Annotated[bool, typer.Option("--json", help="Write the run's events to stdout, one JSON object a line.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer every question with yes, downloads included.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        autocompletion=completion.settings,
        metavar="KEY=VALUE",
        help="One setting, such as training.learning_rate=1e-4. Repeatable.",
    ),
]
RunName = Annotated[
    str | None,
    typer.Option(
        "--name", "-n", rich_help_panel=RUN_OPTIONS, help="Run name. Default: generated from the preset or the model."
    ),
]
Replace = Annotated[
    bool,
    typer.Option(
        "--replace",
        rich_help_panel=RUN_OPTIONS,
        help="Move an existing run with this name to the bin first. Needs --name.",
    ),
]
Detach = Annotated[
    bool, typer.Option("--detach", "-d", rich_help_panel=RUN_OPTIONS, help="Return as soon as the run has started.")
]
ReplanOnOom = Annotated[
    bool,
    typer.Option(
        "--replan-on-oom",
        rich_help_panel=RUN_OPTIONS,
        help="Retry with a smaller micro batch size when memory runs out.",
    ),
]
AcceptChangedData = Annotated[
    bool,
    typer.Option(
        "--accept-changed-data",
        rich_help_panel=RUN_OPTIONS,
        help="Resume although the dataset has changed since the start.",
    ),
]
