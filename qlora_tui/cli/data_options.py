"""Options that `data inspect` and `data convert` share: which rows of a source, and how they are read."""

from typing import Annotated

import typer

Config = Annotated[str | None, typer.Option("--config", help="Configuration (subset) of a hub dataset.")]
Split = Annotated[str | None, typer.Option("--split", help="Split, such as train or train[:1000].")]
Revision = Annotated[str | None, typer.Option("--revision", help="Hub branch, tag or commit.")]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="KIND=NAME", help="Which column holds what, such as prompt=q. Repeatable."),
]
IgnoreColumns = Annotated[
    list[str] | None,
    typer.Option("--ignore-column", metavar="NAME", help="Column to ignore. Repeatable."),
]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Skip unusable rows and count them.")]
