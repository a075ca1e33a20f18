"""Strings that templates write between turns, looked for in the rows' own text: a sign that it is formatted already."""

import re
from typing import Final

from qlora_tui.data.named_templates import NAMED
from qlora_tui.data.templates import ChatTemplate
from qlora_tui.data.tokenizer import Tokenizer, special_tokens

_CHAT_MARKERS: Final = [
    marker
    for name, template in NAMED.items()
    if name not in ("alpaca", "guanaco", "plain")
    for marker in template.markers
]
"""Markers that are written by programs only. "### Response:" is not among them: people train on such text as it is."""


def conversation_markers(template: ChatTemplate, tokenizer: Tokenizer) -> re.Pattern[str]:
    """Finds, inside a turn, what the template or the tokenizer would read as the border of a turn."""
    return _any_of([*template.markers, *special_tokens(tokenizer)])


def text_markers(tokenizer: Tokenizer) -> re.Pattern[str]:
    """Finds, in finished text, the turn markers of chat templates."""
    ends = {tokenizer.eos_token, tokenizer.bos_token}
    return _any_of([*_CHAT_MARKERS, *(token for token in special_tokens(tokenizer) if token not in ends)])


def _any_of(markers: list[str]) -> re.Pattern[str]:
    # Longest first, so that the marker named in a message is the whole one.
    ordered = sorted({marker for marker in markers if marker.strip()}, key=lambda marker: (-len(marker), marker))
    return re.compile("|".join(map(re.escape, ordered)) or "(?!)")
