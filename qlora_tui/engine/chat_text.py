"""Text out of tokens while they arrive, and the tokens that end a turn."""

from collections.abc import Callable
from typing import Any

from jinja2 import TemplateError

from qlora_tui.errors import ModelError

_BROKEN = "\ufffd"
"""What decoders write for bytes that make no character: one mark or several, so far or for good."""

_PROBE = "a1a"


class StreamedText:
    """Emits the text of tokens piece by piece; for whole characters, the pieces make what decoding all at once gives.

    A character can take several tokens, and a token's text can depend on the one before it (a leading space), so
    each piece is what a window of tokens, beginning where a character does, gains by the newest one.
    """

    def __init__(self, tokenizer: Any, emit: Callable[[str], None]) -> None:
        self._tokenizer = tokenizer
        self._emit = emit
        self._window: list[int] = []
        self._whole_tokens = 0
        """Tokens of the window that were whole characters when the last of them came."""

        self._emitted = 0
        """Characters of the window's text that were emitted."""

    def add(self, token: int) -> None:
        """Take a token and emit what has become whole by it."""
        self._window.append(token)
        text = self._decode()
        whole = text.rstrip(_BROKEN)
        self._emit_up_to(text, len(whole))
        if whole == text:
            self._window = self._window[self._whole_tokens :]
            self._whole_tokens = len(self._window)
            self._emitted = len(self._decode())

    def flush(self) -> None:
        """Emit what is left, a broken character included."""
        text = self._decode()
        self._emit_up_to(text, len(text))

    def _emit_up_to(self, text: str, end: int) -> None:
        if end > self._emitted:
            self._emit(text[self._emitted : end])
            self._emitted = end

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._window, skip_special_tokens=True, clean_up_tokenization_spaces=False))


class WithoutEnd:
    """Passes text on piece by piece, all but `end` where the text ends with it."""

    def __init__(self, end: str, emit: Callable[[str], None]) -> None:
        self._end = end
        self._emit = emit
        self._held = ""

    def add(self, piece: str) -> None:
        """Take a piece; what may be the beginning of the end is held back."""
        text = self._held + piece
        starts = range(max(0, len(text) - len(self._end)), len(text))
        kept = next((start for start in starts if self._end.startswith(text[start:])), len(text))
        self._held = text[kept:]
        if kept:
            self._emit(text[:kept])

    def flush(self) -> None:
        """The text has ended."""
        if self._held and self._held != self._end:
            self._emit(self._held)
        self._held = ""


def turn_end_ids(tokenizer: Any) -> list[int]:
    """The token that the chat template writes after an answer, if it is one: a trained model ends its turns with it.

    It need not be the tokenizer's end token: base models with a chat template often have another one.
    """
    ids: list[int] = tokenizer(_after_answer(tokenizer), add_special_tokens=False)["input_ids"]
    return ids[:1] if ids and ids[0] in tokenizer.added_tokens_decoder else []


def turn_end_text(tokenizer: Any) -> str:
    """The marker that the chat template writes between an answer and the end token, where the tokenizer does not know
    it as one token: a trained model writes it out, and it is no part of the answer. Empty: there is none.
    """
    if turn_end_ids(tokenizer) or not tokenizer.eos_token:
        return ""
    marker, end, _ = _after_answer(tokenizer).partition(tokenizer.eos_token)
    return marker.strip() if end else ""


def _after_answer(tokenizer: Any) -> str:
    dialogue = [{"role": "user", "content": "q"}, {"role": "assistant", "content": _PROBE}]
    try:
        rendered: str = tokenizer.apply_chat_template(dialogue, tokenize=False)
    except TemplateError as error:
        raise ModelError(
            f"the model's chat template cannot render a simple conversation: {error}", hint="Choose another model."
        ) from error
    return rendered.rpartition(_PROBE)[2].lstrip()
