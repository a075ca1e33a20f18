"""`paths`: where everything lives."""

import json

import typer

from qlora_tui.cli.options import Json
from qlora_tui.terminal import printable


def register(app: typer.Typer) -> None:
    app.command("paths")(show_paths)


def show_paths(as_json: Json = False) -> None:
    """Show where runs, presets, themes and caches live."""
    from qlora_tui import paths

    found = {
        "runs": paths.runs(),
        "config": paths.config(),
        "presets": paths.user_presets(),
        "themes": paths.user_themes(),
        "shipped presets": paths.shipped("presets"),
        "shipped themes": paths.shipped("themes"),
        "cache": paths.cache(),
        "hub cache": paths.hub_cache(),
    }
    if as_json:
        typer.echo(json.dumps({name.replace(" ", "_"): str(path) for name, path in found.items()}, indent=2))
        return
    width = max(map(len, found))
    for name, path in found.items():
        typer.echo(f"{name:{width}}  {printable(str(path), one_line=True)}")
