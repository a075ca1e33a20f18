"""Text and answer spans turned into token ids and labels. What is -100 here is what the loss does not see.

A token is trained when any of its characters is the answer's. Where one token would hold both the end of the prompt
and the start of the answer, the text is tokenized in pieces cut at that border: the prompt then has the very tokens
it has when the model is asked, and the answer starts with a token the model can produce.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from qlora_tui.data.spans import Rendered, Span
from qlora_tui.data.tokenizer import Tokenizer, encode

IGNORED = -100
"""The label that the loss skips."""


@dataclass(frozen=True, slots=True)
class Encoded:
    ids: list[int]
    answers: tuple[Span, ...]
    """First token of each answer and the one after its last."""


def encode_rendered(tokenizer: Tokenizer, rows: Sequence[Rendered]) -> list[Encoded]:
    """Tokenize rendered rows in one batch and turn character spans into token spans."""
    encoded: list[Encoded] = []
    straddling: list[int] = []
    for index, (row, encoding) in enumerate(zip(rows, encode(tokenizer, [row.text for row in rows]), strict=True)):
        ids = encoding.ids
        spans = [_token_span(encoding, len(ids), span) for span in row.answers]
        answers = tuple(span for span in spans if span is not None)
        encoded.append(Encoded(ids, answers))
        if any(_straddles(encoding, tokens, span) for tokens, span in zip(spans, row.answers, strict=True) if tokens):
            straddling.append(index)
    pieces = _encode_in_pieces(tokenizer, [rows[index] for index in straddling])
    for index, piecewise in zip(straddling, pieces, strict=True):
        encoded[index] = piecewise
    return encoded


def _token_span(encoding: Any, tokens: int, span: Span) -> Span | None:
    start, end = span
    first = next((at for at in map(encoding.char_to_token, range(start, end)) if at is not None), None)
    if first is None:
        return None
    last = next(at for at in map(encoding.char_to_token, range(end - 1, start - 1, -1)) if at is not None)
    # One character can be several tokens (an emoji in a byte-level vocabulary); char_to_token names the first.
    while last + 1 < tokens and _inside(encoding.token_to_chars(last + 1), start, end):
        last += 1
    return first, last + 1


def _inside(chars: Span | None, start: int, end: int) -> bool:
    return chars is not None and start <= chars[0] < end


def _straddles(encoding: Any, tokens: Span, span: Span) -> bool:
    first, last = encoding.token_to_chars(tokens[0]), encoding.token_to_chars(tokens[1] - 1)
    return bool(first[0] < span[0] or last[1] > span[1])


def _encode_in_pieces(tokenizer: Tokenizer, rows: Sequence[Rendered]) -> list[Encoded]:
    if not rows:
        return []
    cut = [_pieces(row) for row in rows]
    first = iter(encode(tokenizer, [pieces[0][0] for pieces in cut]))
    later = iter(_encode_mid_text(tokenizer, [text for pieces in cut for text, _ in pieces[1:]]))
    encoded: list[Encoded] = []
    for pieces in cut:
        ids: list[int] = []
        answers: list[Span] = []
        for index, (_, is_answer) in enumerate(pieces):
            start = len(ids)
            ids += next(later) if index else next(first).ids
            if is_answer:
                answers.append((start, len(ids)))
        encoded.append(Encoded(ids, tuple(answers)))
    return encoded


def _pieces(row: Rendered) -> list[tuple[str, bool]]:
    """The stretches between the borders of the answers, and whether each is an answer."""
    borders = [0, *(at for span in row.answers for at in span), len(row.text)]
    stretches = enumerate(pairwise(borders))
    return [(row.text[start:end], index % 2 == 1) for index, (start, end) in stretches if start < end]


def _encode_mid_text(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Ids of texts that continue a line, without the space some vocabularies put before the start of a text."""
    if not texts:
        return []
    newline, letter, both = (one.ids for one in encode(tokenizer, ["\n", "a", "\na"]))
    plain = [one.ids for one in encode(tokenizer, texts)]
    if both == newline + letter:
        return plain
    led = [one.ids for one in encode(tokenizer, ["\n" + text for text in texts])]
    return [
        with_newline[len(newline) :] if with_newline[: len(newline)] == newline else alone
        for with_newline, alone in zip(led, plain, strict=True)
    ]


def labels(encoded: Encoded, *, loss_on: str) -> list[int]:
    """The labels of one row for `training.loss_on`. The first token is never a target: nothing predicts it."""
    if loss_on == "everything":
        return [IGNORED, *encoded.ids[1:]] if encoded.ids else []
    row = [IGNORED] * len(encoded.ids)
    for start, end in encoded.answers[-1:] if loss_on == "last-response" else encoded.answers:
        row[start:end] = encoded.ids[start:end]
    if row:
        row[0] = IGNORED
    return row
