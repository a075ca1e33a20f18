"""Text and answer spans turned into token ids and labels. What is -100 here is what the loss does not see.

A token is trained when any of its characters is the answer's. Where one token would hold both the end of the prompt
and the start of the answer, the text is tokenized in pieces cut at that border: the prompt then has the very tokens
it has when the model is asked, and the answer starts with a token the model can produce.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from qlora_tui.data.long_text import is_long, stretches
from qlora_tui.data.spans import Rendered, Span
from qlora_tui.data.tokenizer import Tokenizer, encode

_Part = Literal["prompt", "answer", "untrained"]
IGNORED = -100
"""The label that the loss skips."""


@dataclass(frozen=True, slots=True)
class Encoded:
    ids: list[int]
    answers: tuple[Span, ...]
    """Token span of each trained answer: first token, and one past the last."""

    untrained: tuple[Span, ...] = ()
    """Token spans of answers that are not trained, whatever else is."""


def encode_rendered(tokenizer: Tokenizer, rows: Sequence[Rendered]) -> list[Encoded]:
    """Tokenize rendered rows and turn character spans into token spans: in one batch, long ones in stretches."""
    whole = iter(_encode_whole(tokenizer, [row for row in rows if not is_long(row.text)]))
    return [_encode_long(tokenizer, row) if is_long(row.text) else next(whole) for row in rows]


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text: in one batch, long ones in stretches."""
    whole = iter(encode(tokenizer, [text for text in texts if not is_long(text)]))
    return [_encode_long(tokenizer, Rendered(text, ())).ids if is_long(text) else next(whole).ids for text in texts]


def _encode_whole(tokenizer: Tokenizer, rows: Sequence[Rendered]) -> list[Encoded]:
    encoded: list[Encoded] = []
    straddling: list[int] = []
    for index, (row, encoding) in enumerate(zip(rows, encode(tokenizer, [row.text for row in rows]), strict=True)):
        ids = encoding.ids
        spans = [_token_span(encoding, len(ids), span) for span in row.answers]
        found = [(span, at in row.untrained) for at, span in enumerate(spans) if span is not None]
        encoded.append(Encoded(ids, *(tuple(span for span, off in found if off is kind) for kind in (False, True))))
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
    middles = [(before, text) for pieces in cut for (before, _), (text, _) in pairwise(pieces)]
    later = iter(_encode_middles(tokenizer, middles))
    encoded: list[Encoded] = []
    for pieces in cut:
        ids: list[int] = []
        spans: dict[_Part, list[Span]] = {"prompt": [], "answer": [], "untrained": []}
        for index, (_, part) in enumerate(pieces):
            start = len(ids)
            ids += next(later) if index else next(first).ids
            spans[part].append((start, len(ids)))
        encoded.append(Encoded(ids, tuple(spans["answer"]), tuple(spans["untrained"])))
    return encoded


def _encode_long(tokenizer: Tokenizer, row: Rendered) -> Encoded:
    ids: list[int] = []
    spans: dict[_Part, list[Span]] = {"prompt": [], "answer": [], "untrained": []}
    before = ""
    for text, part in _pieces(row):
        start = len(ids)
        for stretch in stretches(tokenizer, text):
            ids += _encode_middles(tokenizer, [(before, stretch)])[0] if before else encode(tokenizer, [stretch])[0].ids
            before = stretch
        if len(ids) > start:
            spans[part].append((start, len(ids)))
    return Encoded(ids, tuple(spans["answer"]), tuple(spans["untrained"]))


def _pieces(row: Rendered) -> list[tuple[str, _Part]]:
    """Return the segments between the boundaries of the answers, and what each is."""
    borders = [0, *(at for span in row.answers for at in span), len(row.text)]
    between = enumerate(pairwise(borders))
    return [
        (row.text[start:end], "prompt" if index % 2 == 0 else "untrained" if index // 2 in row.untrained else "answer")
        for index, (start, end) in between
        if start < end
    ]


def _encode_middles(tokenizer: Tokenizer, middles: list[tuple[str, str]]) -> list[list[int]]:
    """Ids of texts, each given with the text before it.

    Some vocabularies put a space before the start of a text, or again after a marker, or let a marker take the line end
    after it. So a text is tokenized behind the marker that stands before it, else behind a line end where that matters.
    """
    if not middles:
        return []
    newline, letter, both = (one.ids for one in encode(tokenizer, ["\n", "a", "\na"]))
    usual = "" if both == newline + letter else "\n"
    markers = tuple(sorted(tokenizer.get_added_vocab(), key=len, reverse=True))
    leads = [_last_of(markers, before) or usual for before, _ in middles]
    lead_ids: dict[str, list[int]] = {lead: encode(tokenizer, [lead])[0].ids for lead in set(leads)}
    led = [one.ids for one in encode(tokenizer, [lead + text for lead, (_, text) in zip(leads, middles, strict=True)])]
    found: list[list[int]] = []
    for ids, lead, (_, text) in zip(led, leads, middles, strict=True):
        length = len(lead_ids[lead])
        found.append(ids[length:] if ids[:length] == lead_ids[lead] else encode(tokenizer, [text])[0].ids)
    return found


def _last_of(markers: tuple[str, ...], text: str) -> str:
    """The marker that `text` ends with, the longest if several fit; empty when it ends otherwise."""
    return next((marker for marker in markers if text.endswith(marker)), "") if text.endswith(markers) else ""


def labels(encoded: Encoded, *, loss_on: str) -> list[int]:
    """The labels of one row for `training.loss_on`. The first token is never a target: nothing predicts it."""
    if loss_on == "everything":
        row = list(encoded.ids)
        for start, end in encoded.untrained:
            row[start:end] = [IGNORED] * (end - start)
        return [IGNORED, *row[1:]] if row else []
    row = [IGNORED] * len(encoded.ids)
    for start, end in encoded.answers[-1:] if loss_on == "last-response" else encoded.answers:
        row[start:end] = encoded.ids[start:end]
    if row:
        row[0] = IGNORED
    return row
