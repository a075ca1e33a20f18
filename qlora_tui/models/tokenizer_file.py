"""Check the numbers in a tokenizer.json before the tokenizers library reads it.

Absurd sizes make that library allocate memory until it aborts the process, or work for hours in a call that cannot be
interrupted.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qlora_tui.errors import ModelError
from qlora_tui.regular_files import read_bytes

LARGEST_ID = 10_000_000
"""The largest vocabularies have about a million tokens. Memory is allocated up to the largest id."""
LONGEST_PADDING = 10_000_000
LONGEST_ADDED_CHARACTERS = 100_000
"""Maximum length of one added token. A search automaton is built from all of them."""
_HINT = "Choose another model, or download the tokenizer again."


def check(file: Path) -> None:
    """Raise ModelError for a tokenizer.json with absurd sizes. Any other fault is left to the library that reads it."""
    try:
        content = json.loads(read_bytes(file))
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(content, dict):
        for problem in _problems(content):
            raise ModelError(f"{file}: {problem}", hint=_HINT)


def _problems(content: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong, in the order of the file."""
    for key, value in _padding(content.get("padding")):
        if _is_beyond(value, LONGEST_PADDING):
            yield f"padding.{key} is {value:,}, more than {LONGEST_PADDING:,} tokens"
    for where, tokens in (("added_tokens", content.get("added_tokens")), *_templates(content.get("post_processor"))):
        for number, token in enumerate(tokens if isinstance(tokens, list) else ()):
            yield from _token(f"{where}[{number}]", token)
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    for token, number in vocabulary.items() if isinstance(vocabulary, dict) else ():
        if _is_beyond(number, LARGEST_ID):
            yield f"model.vocab: token {token[:40]!r} has id {number:,}, more than {LARGEST_ID:,}"


def _padding(padding: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(padding, dict):
        yield "pad_to_multiple_of", padding.get("pad_to_multiple_of")
        strategy = padding.get("strategy")
        if isinstance(strategy, dict):
            yield "strategy.Fixed", strategy.get("Fixed")


def _templates(processor: Any) -> Iterator[tuple[str, Any]]:
    """Yield the special tokens of a template processor."""
    tokens = processor.get("special_tokens") if isinstance(processor, dict) else None
    if isinstance(tokens, dict):
        yield "post_processor.special_tokens", list(tokens.values())


def _token(where: str, token: Any) -> Iterator[str]:
    if not isinstance(token, dict):
        return
    ids = token.get("ids")
    for number in [token.get("id"), *(ids if isinstance(ids, list) else ())]:
        if _is_beyond(number, LARGEST_ID):
            yield f"{where} has id {number:,}, more than {LARGEST_ID:,}"
    text = token.get("content")
    if isinstance(text, str) and len(text) > LONGEST_ADDED_CHARACTERS:
        yield f"{where} has {len(text):,} characters, more than {LONGEST_ADDED_CHARACTERS:,}"


def _is_beyond(value: Any, limit: int) -> bool:
    return isinstance(value, int) and value > limit
