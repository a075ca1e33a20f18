"""`help`: pages of the manual, complete or one section."""

import re
import sys
from typing import Annotated

import typer

from qlora_tui.cli.options import Json
from qlora_tui.manual import find, pages

_SHELL = re.compile(r"^```(?:sh|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def examples(command: str) -> list[str]:
    """Return the lines of the manual that run `command`, such as "qlora-tui runs list"."""
    wanted = re.compile(rf"(^|\| ){re.escape(command)}( |$)")
    blocks = (block.replace("\\\n ", "") for page in pages() for block in _SHELL.findall(page.text))
    return list(dict.fromkeys(line for block in blocks for line in block.splitlines() if wanted.search(line)))


def register(app: typer.Typer) -> None:
    app.command("help")(show_help)


def show_help(
    topic: Annotated[
        str | None,
        typer.Argument(metavar="[TOPIC]", help="A page, a command or a setting. Default: list the pages."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a page or section of the manual."""
    from qlora_tui.cli.output import write_json, write_table, write_text

    if topic is not None:
        text = find(topic)
        if as_json:
            write_json({"topic": topic, "markdown": text})
        elif sys.stdout.isatty():
            _render(text)
        else:
            write_text(text)
        return
    topics = {page.name: list(page.topics) for page in pages()}
    if as_json:
        write_json({"pages": topics})
    else:
        rows = [[page.name, page.title, ", ".join(topics[page.name])] for page in pages()]
        write_table(["page", "about", "topics"], rows)


def _render(text: str) -> None:
    from rich.markdown import Markdown

    from qlora_tui.cli.inert_console import InertConsole

    InertConsole().print(Markdown(text))
