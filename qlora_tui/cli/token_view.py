"""Rows token by token: what is trained bright, what is masked dim, special tokens and line ends visible.

Without colours trained stretches stand in brackets instead, so that a pipe or NO_COLOR shows the same.
"""

from typing import Any

from rich.console import Console
from rich.text import Text

from qlora_tui.terminal import printable

_HEAD_TOKENS, _TAIL_TOKENS = 320, 80
"""So many tokens are shown of the start and the end of a long row."""

_TRAINED, _MASKED = "bold green", "dim"
_TRAINED_SPECIAL, _MASKED_SPECIAL = "bold magenta", "magenta"


class TokenView:
    def __init__(self, console: Console, *, ids: bool) -> None:
        self._ids = ids
        self._coloured = console.color_system is not None and not console.no_color
        unicode = console.encoding.lower().startswith("utf")
        self._open, self._close = ("⟦", "⟧") if unicode else ("[[", "]]")
        self._newline, self._tab, self._border = ("↵", "⇥", "·") if unicode else ("\\n", "\\t", "|")
        self._joined = False

    def row(self, row: dict[str, Any]) -> Text:
        """One row under a line that says where it is from and how long it is."""
        text = Text(overflow="fold")
        count = row["piece_count"]
        for index, tokens in enumerate(row["pieces"]):
            part = f", piece {index + 1} of {count:,}" if count > 1 else ""
            trained = sum(token["trained"] for token in tokens)
            cut = f", {row['cut_tokens']:,} cut away" if row["cut_tokens"] and not part else ""
            origin = printable(row["origin"], one_line=True)
            text.append(f"{origin}{part}: {len(tokens):,} tokens, {trained:,} trained{cut}\n", style="italic")
            self._append_tokens(text, tokens)
        if count > len(row["pieces"]):
            text.append(f"... {count - len(row['pieces']):,} pieces more ...\n", style="italic")
        if row["dropped"]:
            origin = printable(row["origin"], one_line=True)
            text.append(f"{origin}: {row['full_tokens']:,} tokens, dropped: {row['dropped']}\n", style="italic")
            for tokens in row["untrained"][:1]:
                self._append_tokens(text, tokens)
        return text

    def legend(self) -> Text:
        """What the looks mean."""
        if not self._coloured:
            trained = f"{self._open}trained{self._close}, the rest is masked"
            return Text(f"{trained}; {self._newline} ends a line; {self._between()}")
        looks = (
            Text("trained", _TRAINED),
            Text("masked", _MASKED),
            Text("special and trained", _TRAINED_SPECIAL),
            Text("special", _MASKED_SPECIAL),
        )
        return Text(", ").join(looks).append(f"; {self._newline} ends a line; {self._between()}")

    def _between(self) -> str:
        if self._ids:
            return "{} holds the id of a token"
        return f"{self._border} between tokens" + (", but not inside a character" if self._joined else "")

    def _append_tokens(self, text: Text, tokens: list[dict[str, Any]]) -> None:
        hidden = len(tokens) - _HEAD_TOKENS - _TAIL_TOKENS
        if hidden > _TAIL_TOKENS:
            self._append_run(text, tokens[:_HEAD_TOKENS])
            text.append(f"\n... {hidden:,} tokens more ...\n", style="italic")
            tokens = tokens[-_TAIL_TOKENS:]
        self._append_run(text, tokens)
        if not tokens[-1]["text"].endswith("\n"):
            text.append("\n")

    def _append_run(self, text: Text, tokens: list[dict[str, Any]]) -> None:
        inside = False
        for index, token in enumerate(tokens):
            if token["trained"] != inside:
                inside = token["trained"]
                self._append_bracket(text, opens=inside)
            elif index and not self._ids:
                self._append_border(text, tokens[index - 1])
            self._append_token(text, token)
        if inside:
            self._append_bracket(text, opens=False)

    def _append_border(self, text: Text, before: dict[str, Any]) -> None:
        if not before["text"]:
            self._joined = True  # It is a part of a character, which stands at the last of its tokens.
        elif not before["text"].endswith("\n"):
            text.append(self._border, style="dim" if self._coloured else "")

    def _append_bracket(self, text: Text, *, opens: bool) -> None:
        if self._coloured:
            return
        text.append(self._open if opens else self._close)

    def _append_token(self, text: Text, token: dict[str, Any]) -> None:
        styles = (_MASKED_SPECIAL, _TRAINED_SPECIAL) if token["special"] else (_MASKED, _TRAINED)
        shown = printable(token["text"]).replace("\t", self._tab).replace("\n", self._newline + "\n")
        # The id goes before the line end, or it would stand in front of the next line's first token.
        line = shown.removesuffix("\n")
        text.append(line, style=styles[token["trained"]] if self._coloured else "")
        if self._ids:
            text.append(f"{{{token['id']}}}", style="cyan" if self._coloured else "")
        text.append(shown[len(line) :])
