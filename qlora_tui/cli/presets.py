"""`qlora-tui presets`: list, show, check and write presets, and translate the flags of the original qlora.py."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlora_tui.cli import completion
from qlora_tui.cli.command import Noun
from qlora_tui.cli.options import Json, Settings
from qlora_tui.terminal import narrate, printable

if TYPE_CHECKING:
    from qlora_tui.config.presets import Preset
    from qlora_tui.config.run import RunConfig

app = Noun("List, show, check and write presets.")


@app.command("list")
def list_presets(as_json: Json = False) -> None:
    """List all presets.

    Your own presets take precedence over shipped ones with the same name.
    """
    from qlora_tui.cli.output import write_json, write_table
    from qlora_tui.config.presets import presets

    rows = [_summary(preset) for preset in presets()]
    if as_json:
        write_json({"presets": rows})
    else:
        write_table(["name", "origin", "title"], [[row["name"], row["origin"], row["title"]] for row in rows])


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="PRESET", autocompletion=completion.presets, help="Name of a preset.")],
    full: Annotated[bool, typer.Option("--full", help="Write every setting, including defaults.")] = False,
    as_json: Json = False,
) -> None:
    """Write a preset to stdout."""
    from qlora_tui.cli.output import write_json, write_text
    from qlora_tui.config.presets import find
    from qlora_tui.config.toml_file import to_toml

    preset = find(name)
    config = preset.config
    if as_json:
        write_json(_summary(preset) | {"config": config.model_dump(mode="json")})
        return
    narrate(f"{preset.origin} preset {preset.path}")
    _warn(config)
    write_text(to_toml(config, comment="\n".join(preset.description)) if full else preset.text)


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new preset.")],
    base: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="PRESET", autocompletion=completion.targets, help="Preset or file to start from."
        ),
    ] = None,
    settings: Settings = None,
    model: Annotated[
        str | None, typer.Option("--model", autocompletion=completion.models, help="Base model: a hub id or a folder.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--replace", "--force", help="Replace an existing preset with this name.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Create a preset and write its path to stdout."""
    from qlora_tui.cli.configuration import configured
    from qlora_tui.cli.output import write_json, write_line
    from qlora_tui.config.presets import split_target, user_path, write
    from qlora_tui.config.toml_file import to_toml
    from qlora_tui.runs.freeze import frozen

    user_path(name)
    overrides = [*([f"model.id={model}"] if model is not None else []), *(settings or [])]
    preset, file = split_target(base) if base is not None else (None, None)
    config = frozen(configured(preset, file, overrides))
    _warn(config)
    changes = "".join(f"\nwith {printable(text, one_line=True)}" for text in overrides)
    comment = f"{name}: {config.model.id} on {config.data.source}" + (f"\nBegun from {base}" if base else "") + changes
    path = write(name, to_toml(config, sparse=True, comment=printable(comment)), replace=force)
    if as_json:
        write_json({"preset": name, "path": str(path)})
    else:
        write_line(str(path))


@app.command()
def check(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PRESET|FILE]...", autocompletion=completion.targets, help="Preset name or .toml file."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the settings, models and data of presets.

    Default: all presets. Local models and data must exist. The first rows of local data are checked against the format
    and the columns, and the names of modules against the model. The hub is not contacted.
    """
    from qlora_tui.cli.output import write_json
    from qlora_tui.config.overrides import resolve
    from qlora_tui.config.presets import presets, split_target
    from qlora_tui.errors import QloraError

    failed: list[QloraError] = []
    checked: list[dict[str, Any]] = []
    for target in targets or [preset.name for preset in presets()]:
        try:
            config = resolve(*split_target(target))
            on_hub = _check_files(target, config)
        except QloraError as error:
            failed.append(error)
            checked.append({"target": target, "valid": False, "message": error.message, "hint": error.hint})
            continue
        checked.append({"target": target, "valid": True, "not_checked": on_hub})
        narrate(f"{target}: valid" + (f"; on the hub, not checked: {', '.join(on_hub)}" if on_hub else ""))
        _warn(config)
    if as_json:
        write_json({"checked": checked})
    for earlier in failed[:-1]:
        narrate(f"{earlier.message} {earlier.hint}".rstrip())
    if failed:
        raise failed[-1]


@app.command(
    "from-flags",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
def from_flags(
    flags: Annotated[list[str], typer.Argument(metavar="-- FLAGS...", help="Flags of qlora.py, after --.")],
    as_json: Json = False,
) -> None:
    """Translate a command line of qlora.py into a preset.

    Writes the preset to stdout, and notes on flags without an equivalent to stderr.
    """
    from qlora_tui.cli.output import write_json, write_text
    from qlora_tui.config.qlora_translation import translate
    from qlora_tui.config.toml_file import to_toml

    config, notes = translate(flags)
    for note in notes:
        narrate(note)
    _warn(config)
    if as_json:
        write_json({"config": config.model_dump(mode="json"), "notes": notes})
        return
    comment = f"{config.model.id} on {config.data.source}: translated from flags of qlora.py"
    write_text(to_toml(config, sparse=True, comment=printable(comment, one_line=True)))


def _check_files(target: str, config: "RunConfig") -> list[str]:
    """Check the model folder and the data files of a preset; return what is on the hub. Raises QloraError."""
    from qlora_tui import paths
    from qlora_tui.data.checking import check_data
    from qlora_tui.errors import NotFoundError, QloraError
    from qlora_tui.models.folder import location
    from qlora_tui.models.location import local_folder
    from qlora_tui.runs.precheck import check_module_names

    questions = config.training.mmlu_file
    try:
        location(config.model)
        check_module_names(config)
        on_hub = check_data(config.data)
        if questions is not None and paths.existing(questions) is None:
            raise NotFoundError(
                f"training.mmlu_file: no file {questions}", hint="Download it with `qlora-tui eval mmlu-file`."
            )
    except QloraError as error:
        error.message = f"{target}: {error.message}"
        raise
    return on_hub if local_folder(config.model) else [config.model.id, *on_hub]


def _summary(preset: "Preset") -> dict[str, Any]:
    """What is known of a preset; a file that cannot be read is shown with the reason as its title."""
    from qlora_tui.errors import QloraError

    try:
        description = list(preset.description)
    except QloraError as error:
        narrate(error.message)
        description = []
    return {
        "name": preset.name,
        "origin": preset.origin,
        "path": str(preset.path),
        "title": description[0] if description else "",
        "description": description,
    }


def _warn(config: "RunConfig") -> None:
    from qlora_tui.config.contradictions import without_effect

    for sentence in without_effect(config):
        narrate(f"warning: {sentence}")
