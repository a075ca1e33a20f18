"""Output in locales without UTF-8: ASCII replacements for frames and symbols."""

import codecs
import sys
import unicodedata
from io import TextIOWrapper

_HANDLER = "qlora-tui"
_PLAIN = {
    **dict.fromkeys("─━═╌╍┄┅┈┉╴╶╸╺╼╾▔▁▂▃▄‾–—‐‑", "-"),
    **dict.fromkeys("│┃║╎╏┆┇┊┋╵╷╹╻╽╿▏▎▍▌▐▕▊▋▉", "|"),
    **dict.fromkeys("█▓▆▇▅■◼◆▰", "#"),
    **dict.fromkeys("░▒▱·∙", "."),
    **dict.fromkeys("●◉◌○◎•", "o"),
    **dict.fromkeys("✓✔", "v"),
    **dict.fromkeys("✗✘×╳", "x"),
    **dict.fromkeys("▶▸►›→⇥", ">"),
    **dict.fromkeys("◀◂◄‹←", "<"),
    **dict.fromkeys("▼▾↓⏎↵", "v"),
    **dict.fromkeys("▲▴↑", "^"),
    **dict.fromkeys("‘’‚", "'"),
    **dict.fromkeys("“”„", '"'),
    **dict.fromkeys("⟦", "["),
    **dict.fromkeys("⟧", "]"),
    "…": ".",
    "╱": "/",
    "╲": "\\",
}
"""One column for one column."""

_BOX = range(0x2500, 0x2580)
_BRAILLE = range(0x2800, 0x2900)


def plain(error: UnicodeError) -> tuple[str, int]:
    """Replace unencodable characters by ASCII characters of the same width."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    code = ord(character)
    if code in _BOX:
        return "+"
    if code in _BRAILLE:
        return "*" if code > _BRAILLE.start else " "
    bare = unicodedata.normalize("NFKD", character)[:1]
    if bare.isascii() and bare.isprintable() and bare:
        return bare
    return "??" if unicodedata.east_asian_width(character) in "WF" else "?"


def adapt_streams() -> None:
    """Make stdout and stderr replace unencodable characters when their encoding is not UTF-8."""
    codecs.register_error(_HANDLER, plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.encoding.lower().replace("-", "") not in ("utf8", "utf8sig"):
            stream.reconfigure(errors=_HANDLER)
