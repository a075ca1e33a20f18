"""The command line's own kind of command: `--help` with options in groups and with examples from the manual."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand
from typer.models import CommandFunctionType

RUN_OPTIONS = "Run"
DATA_OPTIONS = "Data"
TRAINING_OPTIONS = "Training"
MEASUREMENT_OPTIONS = "Measurement"
ANSWER_OPTIONS = "Answers"
MODE_OPTIONS = "Modes (one at a time)"
ENDPOINT_OPTIONS = "Judge at an endpoint"
LOCAL_OPTIONS = "Judge on this machine"
RATING_OPTIONS = "Rating"
VERDICT_OPTIONS = "Verdicts"

_GENERAL = "Options"
_MOST_EXAMPLES = 3


class Command(TyperCommand):
    """A command whose help lists each group of options (`rich_help_panel`) under its own title."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then the options of each group in the order of their declaration."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                argument = parameter.param_type_name == "argument"
                title = "Arguments" if argument else getattr(parameter, "rich_help_panel", None) or _GENERAL
                groups.setdefault(title, []).append(record)
        general = groups.pop(_GENERAL)
        for title, records in [*groups.items(), (_GENERAL if len(groups) < 2 else "Other options", general)]:
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the first lines of the manual that run this command."""
        from qlora_tui.cli.manual import examples

        widest = formatter.width - formatter.indent_increment
        found = [line for line in examples(ctx.command_path) if len(line) <= widest][:_MOST_EXAMPLES]
        if found:
            with formatter.section("Examples" if len(found) > 1 else "Example"):
                for line in found:
                    formatter.write(f"{' ' * formatter.current_indent}{line}\n")


class Noun(typer.Typer):
    """A group of commands, each with the help described above."""

    def __init__(self, summary: str, **options: Any) -> None:
        super().__init__(help=summary, **{"no_args_is_help": True, "rich_markup_mode": None, **options})

    def command(
        self, name: str | None = None, *, cls: type[TyperCommand] | None = Command, **options: Any
    ) -> Callable[[CommandFunctionType], CommandFunctionType]:
        """Register a function as a command of this class."""
        return super().command(name, cls=cls, **options)
