"""Texts too long to be tokenized at once, cut where a tokenizer puts a border between tokens anyway.

While a tokenizer has a text it takes about two hundred bytes for each of its own; of a stretch only the ids are kept.
"""

import re
from collections.abc import Iterator
from itertools import islice

from qlora_tui.data.tokenizer import Tokenizer, encode

WHOLE_CHARACTERS = 1 << 20
"""A text of so many characters is tokenized at once."""

_WORD_OR_LINE = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])|(?<=\n)(?=[^\W_])")
_TRIED = 20
_AROUND_CHARACTERS = 200


def is_long(text: str) -> bool:
    """Whether `text` is better tokenized in stretches."""
    return len(text) > WHOLE_CHARACTERS


def stretches(tokenizer: Tokenizer, text: str) -> Iterator[str]:
    """`text` in pieces that, tokenized as the middle of a text, give its very tokens.

    Cut between words or lines, where the tokenizer shows a border. Where it shows none, as in a long text without
    spaces, the rest stays whole.
    """
    start = 0
    while len(text) - start > WHOLE_CHARACTERS:
        candidates = islice(_WORD_OR_LINE.finditer(text, start + WHOLE_CHARACTERS), _TRIED)
        cut = next((one.start() for one in candidates if _is_border(tokenizer, text, one.start())), None)
        if cut is None:
            break
        yield text[start:cut]
        start = cut
    yield text[start:]


def _is_border(tokenizer: Tokenizer, text: str, at: int) -> bool:
    """Whether no token holds characters of both sides, seen from what stands around the place."""
    first = max(0, at - _AROUND_CHARACTERS)
    encoding = encode(tokenizer, [text[first : at + _AROUND_CHARACTERS]])[0]
    before, after = at - 1 - first, at - first
    # A vocabulary may leave the space before a word out of what the word's token covers.
    tokens = [encoding.char_to_token(place) for place in (before, after, after + 1)]
    left, right = tokens[0], tokens[1] if tokens[1] is not None else tokens[2]
    if left is None or right is None:
        return False
    return bool(encoding.token_to_chars(left)[1] <= after <= encoding.token_to_chars(right)[0])
