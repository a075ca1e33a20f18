"""`data`: the group of commands about training data."""

import typer

from qlora_tui.cli import data_check, data_inspect, data_sources

app = typer.Typer(no_args_is_help=True, help="List, inspect and convert training data.")
data_sources.register(app)
data_inspect.register(app)
data_check.register(app)
