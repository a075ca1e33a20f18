"""What may reach the terminal: foreign text made inert, data on stdout, narration on stderr."""

import re
import sys
import unicodedata

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


def narrate(text: str) -> None:
    """Write one line of narration to stderr."""
    print(printable(text), file=sys.stderr, flush=True)
