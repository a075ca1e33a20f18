"""How long the rows are, in tokens, and where they are cut."""

from typing import Any

from textual.content import Content
from textual.widgets import Static

from qlora_tui.terminal import printable


class LengthHistogram(Static):
    """Bars of rows by length, with a line where `training.max_length_tokens` cuts."""

    DEFAULT_CSS = "LengthHistogram { height: auto; padding: 0 1; }"

    def __init__(self) -> None:
        super().__init__("", markup=False)
        self._numbers: dict[str, Any] | None = None
        self._max_length = 0

    def show(self, numbers: dict[str, Any] | None, max_length_tokens: int, title: str = "") -> None:
        """Show an inspection's numbers with the cut at `max_length_tokens`; None: nothing is known."""
        self._numbers, self._max_length = numbers, max_length_tokens
        if numbers is None or not numbers["histogram"]:
            self.update("")
            return
        lines = [Content.styled(title, "bold"), *self._bars(numbers["histogram"], max_length_tokens)]
        longest = printable(numbers["longest_origin"], one_line=True)
        lines.append(
            Content(
                f"{numbers['tokens']:,} tokens, {numbers['trained_share']:.1%} trained; "
                f"longest row {numbers['longest_tokens']:,} tokens ({longest})"
            )
        )
        self.update(Content("\n").join(lines))

    def _bars(self, bins: list[dict[str, int]], cut: int) -> list[Content]:
        most = max(one["rows"] for one in bins)
        width = len(f"{bins[-1]['to_tokens']:,}")
        counts = len(f"{most:,}")
        room = max(8, min(60, (self.size.width or 60) - 2 * width - counts - 10))
        lines, drawn = [], False
        for one in bins:
            if not drawn and one["from_tokens"] >= cut:
                lines.append(_cut_line(cut, room))
                drawn = True
            length = max(1, round(room * one["rows"] / most)) if one["rows"] else 0
            beyond = one["from_tokens"] >= cut
            lines.append(
                Content.assemble(
                    (f"{one['from_tokens']:>{width},} to {one['to_tokens']:>{width},} ", "$foreground 60%"),
                    f"{one['rows']:>{counts},} ",
                    ("▒" * length if beyond else "█" * length, "$text-error" if beyond else "$secondary"),
                )
            )
            if not drawn and one["from_tokens"] < cut <= one["to_tokens"]:
                lines.append(_cut_line(cut, room))
                drawn = True
        return lines


def _cut_line(cut: int, room: int) -> Content:
    return Content.styled(f"── cut at {cut:,} tokens {'─' * max(0, room - 10)}", "$text-warning")
