"""Rows as the model will see them, token by token, with what is trained told from what is masked."""

from dataclasses import dataclass
from typing import Any

from qlora_tui.data.mask import IGNORED
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.tokenizer import Tokenizer, special_tokens


@dataclass(frozen=True, slots=True)
class Token:
    id: int
    text: str
    """The characters it writes; empty for the first parts of a character that several tokens make up."""

    trained: bool
    special: bool


@dataclass(frozen=True, slots=True)
class PreviewRow:
    origin: str
    pieces: tuple[tuple[Token, ...], ...]
    """The first training rows of this row: one, or several when it is split, or none when it is dropped."""

    piece_count: int
    """How many training rows there are of it."""

    untrained: tuple[tuple[Token, ...], ...]
    """What is left of it without a trained token, and is therefore not trained on."""

    full_tokens: int
    cut_tokens: int
    dropped: str
    """Why nothing is left of the row; empty when something is."""


def preview(recipe: Recipe, rows: dict[str, list[Any]], most_pieces: int | None = None) -> list[PreviewRow]:
    """The preview of a batch of columns messages, text, tools and origin: the very ids and labels that are trained.

    `most_pieces`: so many training rows of each split row.
    """
    texts = _TokenTexts(recipe.tokenizer)
    return [
        PreviewRow(
            origin=row.origin,
            pieces=tuple(texts.tokens(ids, labels) for ids, labels in row.pieces[:most_pieces]),
            piece_count=len(row.pieces),
            untrained=tuple(texts.tokens(ids, labels) for ids, labels in row.untrained[:most_pieces]),
            full_tokens=row.full_tokens,
            cut_tokens=row.cut_tokens,
            dropped=row.dropped,
        )
        for row in recipe.encoder().encode(rows)
    ]


class _TokenTexts:
    """What single tokens write. Decoded after a letter, as many vocabularies drop a space at the start of a text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._decode = tokenizer.backend_tokenizer.decode
        self._lead: list[int] = tokenizer(["a"], add_special_tokens=False)["input_ids"][0]
        self._lead_text = self._text(self._lead)
        ids = {content: token_id for token_id, content in _added(tokenizer)}
        self._special = {ids[content]: content for content in special_tokens(tokenizer)}

    def tokens(self, ids: list[int], labels: list[int]) -> tuple[Token, ...]:
        """One Token for each id."""
        tokens = []
        partial: list[int] = []
        for at, (token_id, label) in enumerate(zip(ids, labels, strict=True)):
            text = self._special.get(token_id)
            if text is None:
                partial.append(token_id)
                text = self._text(self._lead + partial)[len(self._lead_text) :]
                whole = "\ufffd" not in text
                # Tokens of one character are shown at the last of them; at a border what is there has to do.
                last = at + 1 == len(ids) or ids[at + 1] in self._special or len(partial) == 16
                text, partial = (text, []) if whole or last else ("", partial)
            tokens.append(Token(token_id, text, label != IGNORED, token_id in self._special))
        return tuple(tokens)

    def _text(self, ids: list[int]) -> str:
        text: str = self._decode(ids, skip_special_tokens=False)
        return text


def _added(tokenizer: Tokenizer) -> list[tuple[int, str]]:
    return [(token_id, token.content) for token_id, token in tokenizer.added_tokens_decoder.items()]
