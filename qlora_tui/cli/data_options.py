"""Options that `data inspect` and `data convert` share: which rows of a source, and how they are read."""

from typing import Annotated

import typer

from qlora_tui.cli.command import DATA_OPTIONS

Config = Annotated[
    str | None, typer.Option("--config", rich_help_panel=DATA_OPTIONS, help="Configuration (subset) of a hub dataset.")
]
Split = Annotated[
    str | None, typer.Option("--split", rich_help_panel=DATA_OPTIONS, help="Split, such as train or train[:1000].")
]
Revision = Annotated[
    str | None, typer.Option("--revision", rich_help_panel=DATA_OPTIONS, help="Hub branch, tag or commit.")
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        rich_help_panel=DATA_OPTIONS,
        metavar="KIND=NAME",
        help="Which column holds what, such as prompt=q. Repeatable.",
    ),
]
IgnoreColumns = Annotated[
    list[str] | None,
    typer.Option("--ignore-column", rich_help_panel=DATA_OPTIONS, metavar="NAME", help="Column to ignore. Repeatable."),
]
SkipBadRows = Annotated[
    bool, typer.Option("--skip-bad-rows", rich_help_panel=DATA_OPTIONS, help="Skip unusable rows and count them.")
]
