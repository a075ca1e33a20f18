"""`paths`: where everything lives."""

import typer

from qlora_tui.cli.options import Json


def register(app: typer.Typer) -> None:
    app.command("paths")(show_paths)


def show_paths(as_json: Json = False) -> None:
    """Show the folders of runs, presets, themes and caches."""
    from qlora_tui import paths
    from qlora_tui.cli.output import write_facts, write_json

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
        write_json({name.replace(" ", "_"): str(path) for name, path in found.items()})
    else:
        write_facts({name: str(path) for name, path in found.items()})
