"""Rows token by token, as the loss sees them: trained tokens bright, masked ones dim, ends of lines visible."""

from collections.abc import Sequence
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from qlora_tui.terminal import printable

_HEAD_TOKENS, _TAIL_TOKENS = 320, 80
"""So many tokens are shown of the start and the end of a long row."""

Row = dict[str, Any]


class TokenPreview(VerticalScroll, can_focus=True):
    """One row at a time; n and p go through them, l and c jump to the longest and to the next one that is cut."""

    DEFAULT_CSS = """
    TokenPreview {
        height: auto; max-height: 16; padding: 0 1; background: $surface;
        border-left: vkey $primary 30%;
        &:focus { border-left: vkey $primary; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "move(1)", "Next row", id="rows.next", tooltip="The next row, token by token"),
        Binding("p", "move(-1)", "Previous", id="rows.previous", tooltip="The row before, token by token"),
        Binding("l", "longest", "Longest", id="rows.longest", tooltip="The longest row of those looked at"),
        Binding("c", "cut", "Next cut", id="rows.cut", tooltip="The next row that is cut, split or dropped"),
    ]
    HELP = """\
## What the loss sees

Bright tokens are trained, dim ones are masked (the model reads them and is not asked to say them). `n` and `p` go
through the rows, `l` jumps to the longest, `c` to the next row that is cut, split or dropped.
"""

    def __init__(self) -> None:
        super().__init__(id="token-preview")
        self._rows: list[Row] = []
        self._at = 0

    def compose(self) -> ComposeResult:
        yield Static("", markup=False)

    def show(self, rows: Sequence[Row]) -> None:
        """Show these rows, from the first on."""
        self._rows, self._at = list(rows), 0
        self._show_row()

    def add(self, rows: Sequence[Row]) -> None:
        """More rows are known; the one that is shown stays."""
        known = {row["origin"] for row in self._rows}
        self._rows += [row for row in rows if row["origin"] not in known]
        self._show_row()

    @property
    def origin(self) -> str:
        """Where the row that is shown comes from; empty without one."""
        return str(self._rows[self._at]["origin"]) if self._rows else ""

    def on_focus(self) -> None:
        self.scroll_visible(top=True, animate=False)

    def action_move(self, by: int) -> None:
        if self._rows:
            self._at = (self._at + by) % len(self._rows)
            self._show_row()

    def action_longest(self) -> None:
        if self._rows:
            self._at = max(range(len(self._rows)), key=lambda index: self._rows[index]["full_tokens"])
            self._show_row()

    def action_cut(self) -> None:
        order = [(self._at + step) % len(self._rows) for step in range(1, len(self._rows) + 1)]
        found = next((index for index in order if _is_cut(self._rows[index])), None)
        if found is None:
            self.notify("No row among those looked at is cut, split or dropped.")
            return
        self._at = found
        self._show_row()

    def _show_row(self) -> None:
        text = Content("")
        if self._rows:
            row = self._rows[self._at]
            text = Content.assemble(_heading(row, self._at + 1, len(self._rows)), "\n", self._tokens(row))
        self.query_one(Static).update(text)
        self.scroll_home(animate=False)

    def _tokens(self, row: Row) -> Content:
        pieces = row["pieces"] or row["untrained"][:1]
        shown = [_stretch(tokens, bare=self.app.no_color) for tokens in pieces]
        return Content("\n── next piece ──\n").join(shown)


def _is_cut(row: Row) -> bool:
    return bool(row["cut_tokens"] or row["dropped"] or len(row["pieces"]) > 1)


def _heading(row: Row, number: int, total: int) -> Content:
    tokens = sum(len(piece) for piece in row["pieces"])
    trained = sum(token["trained"] for piece in row["pieces"] for token in piece)
    said = f"row {number} of {total}  {printable(row['origin'], one_line=True)}  {row['full_tokens']:,} tokens"
    if row["dropped"]:
        return Content.assemble((said, "bold"), (f"  dropped: {printable(row['dropped'])}", "$text-error"))
    cut = f"  {row['cut_tokens']:,} cut away" if row["cut_tokens"] else ""
    split = f"  in {row['piece_count']:,} pieces" if row["piece_count"] > 1 else ""
    return Content.assemble((said, "bold"), f"  {trained:,} of {tokens:,} trained", (cut + split, "$text-warning"))


def _stretch(tokens: Sequence[Row], *, bare: bool) -> Content:
    hidden = len(tokens) - _HEAD_TOKENS - _TAIL_TOKENS
    if hidden <= _TAIL_TOKENS:
        return Content.assemble(*_parts(tokens, bare))
    more = f"\n… {hidden:,} tokens more …\n"
    return Content.assemble(*_parts(tokens[:_HEAD_TOKENS], bare), more, *_parts(tokens[-_TAIL_TOKENS:], bare))


def _parts(tokens: Sequence[Row], bare: bool) -> list[str | tuple[str, str]]:
    """Styled texts; without colours trained stretches stand in brackets."""
    parts: list[str | tuple[str, str]] = []
    inside = False
    for index, token in enumerate(tokens):
        trained = bool(token["trained"])
        if bare and trained != inside:
            parts.append("⟦" if trained else "⟧")
        elif index and _ends_on_the_line(tokens[index - 1]["text"]):
            parts.append(("·", "$foreground 30%"))
        inside = trained
        text = printable(token["text"]).replace("\t", "⇥").replace("\n", "↵\n")
        parts.append((text, _style(trained=trained, special=bool(token["special"]))))
    if bare and inside:
        parts.append("⟧")
    return parts


def _ends_on_the_line(text: str) -> bool:
    """Whether a token ends between two characters of a line: one without text is a part of a character."""
    return bool(text) and not text.endswith("\n")


def _style(*, trained: bool, special: bool) -> str:
    if special:
        return "bold $accent" if trained else "$accent 60%"
    return "bold $text-success" if trained else "$foreground 60%"
