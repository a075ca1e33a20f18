"""`help`: pages of the manual, complete or one section."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from qlora_tui.cli.options import Json

_FOLDER = Path(__file__).resolve().parent.parent / "manual"
_SHELL = re.compile(r"^```(?:sh|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^## +(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """One Markdown file of the manual."""

    name: str
    text: str

    @property
    def sections(self) -> dict[str, str]:
        """Text of each section by its heading, in lower case. Each command in a heading has its own entry."""
        starts = [*_HEADING.finditer(self.text)]
        ends = [*(match.start() for match in starts[1:]), len(self.text)]
        return {
            name.strip().lower(): self.text[match.start() : end].rstrip() + "\n"
            for match, end in zip(starts, ends, strict=True)
            for name in match[1].split(",")
        }


def pages() -> list[Page]:
    """Return all pages by name."""
    return [Page(path.stem, path.read_text(encoding="utf-8")) for path in sorted(_FOLDER.glob("*.md"))]


def find(topic: str) -> str:
    """Return a page or the section about a topic, as Markdown. Raises NotFoundError with the nearest topic."""
    from qlora_tui.errors import NotFoundError, nearest

    known: dict[str, str] = {}
    for page in pages():
        known |= page.sections
    known |= {page.name: page.text for page in pages()}
    found = known.get(topic.lower())
    if found is None:
        raise NotFoundError(f"no help on {topic!r}", hint=nearest(topic.lower(), list(known)))
    return found


def examples(command: str) -> list[str]:
    """Return the lines of the manual that run `command`, such as "qlora-tui runs list"."""
    wanted = re.compile(rf"(^|\| ){re.escape(command)}( |$)")
    blocks = (block for page in pages() for block in _SHELL.findall(page.text))
    return list(dict.fromkeys(line for block in blocks for line in block.splitlines() if wanted.search(line)))


def register(app: typer.Typer) -> None:
    app.command("help")(show_help)


def show_help(
    topic: Annotated[
        str | None, typer.Argument(metavar="[TOPIC]", help="A page or a command. Default: list the topics.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show a page of the manual or the section about a command."""
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
    topics = {page.name: list(page.sections) for page in pages()}
    if as_json:
        write_json({"pages": topics})
    else:
        write_table(["page", "topics"], [[name, ", ".join(sections)] for name, sections in topics.items()])


def _render(text: str) -> None:
    from rich.markdown import Markdown

    from qlora_tui.cli.inert_console import InertConsole

    InertConsole().print(Markdown(text))
