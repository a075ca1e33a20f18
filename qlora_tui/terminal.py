"""What may reach the terminal: foreign text made inert, data on stdout, narration on stderr."""

import json
import re
import sys
import unicodedata

from qlora_tui.redaction import redacted

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])"
    r"|[\x9b][0-?]*[ -/]*[@-~]"
)
_KEPT = {"\n", "\t"}
_HIDDEN_CATEGORIES = {"Cc", "Cs"}
_BIDI_CONTROLS = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, *, one_line: bool = False) -> str:
    """`text` with escape sequences removed and other control characters shown as `\\x..`.

    Newline and tab are kept unless `one_line`. Bidirectional controls and lone surrogates are shown as escapes too:
    both can make a terminal show something else than what is there.
    """
    plain = _ESCAPES.sub("", text)
    if one_line:
        plain = " ".join(plain.split())
    if plain.isprintable():
        return plain
    return "".join(_visible(character) for character in plain)


def _visible(character: str) -> str:
    if character in _KEPT:
        return character
    if character in _BIDI_CONTROLS or unicodedata.category(character) in _HIDDEN_CATEGORIES:
        code = ord(character)
        return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    return character


def json_safe(text: str) -> str:
    """Return JSON text with unprintable characters escaped: the same values, safe on a terminal."""
    return _UNPRINTED.sub(_json_escape, text) if not text.isascii() or "\x7f" in text else text


_UNPRINTED = re.compile(r"[^\x00-\x7e]")


def _json_escape(match: re.Match[str]) -> str:
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


def rewrite_line(text: str, *, last: bool) -> None:
    """Replace the current line of stderr, a terminal, by `text`; end the line with the `last` text."""
    print(f"\r\x1b[K{printable(text, one_line=True)}", end="\n" if last else "", file=sys.stderr, flush=True)


def narrate(text: str, *, end: str = "\n") -> None:
    """Write a message to stderr, by default as a line, with secrets redacted."""
    print(printable(redacted(text)), end=end, file=sys.stderr, flush=True)
