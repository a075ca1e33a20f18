"""What data preparation needs of a tokenizer, so that no module here imports the library that makes one."""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

from qlora_tui.errors import ModelError


class Tokenizer(Protocol):
    """The part of a Hugging Face fast tokenizer that is used here."""

    chat_template: str | dict[str, str] | None
    bos_token: str | None
    eos_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None

    @property
    def is_fast(self) -> bool: ...

    @property
    def backend_tokenizer(self) -> Any: ...

    def __call__(
        self,
        text: list[str],
        *,
        add_special_tokens: bool,
        return_attention_mask: bool | None = None,
        return_token_type_ids: bool | None = None,
        verbose: bool = True,
    ) -> Any: ...

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        tools: list[Any] | None = None,
        *,
        chat_template: str,
        add_generation_prompt: bool = False,
        tokenize: bool = False,
    ) -> Any: ...

    def get_added_vocab(self) -> dict[str, int]: ...

    @property
    def added_tokens_decoder(self) -> dict[int, Any]: ...

    def decode(self, token_ids: list[int]) -> str: ...


def require_fast(tokenizer: Tokenizer) -> None:
    """Raise ModelError for a tokenizer that cannot say which characters a token covers."""
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            "the model's tokenizer has no fast version, which alone can tell answers from prompts token by token",
            hint="Use a model folder that holds a tokenizer.json, or convert the tokenizer once with transformers.",
        )


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[Any]:
    """One `tokenizers.Encoding` for each text, no special tokens added."""
    if not texts:
        return []
    # The encodings hold what the masks would say; making these as well costs a twentieth of the time.
    made = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )
    return list(made.encodings)


def opening_id(tokenizer: Tokenizer, *, always_bos: bool = False) -> int | None:
    """Id of the token that the tokenizer adds before every text (bos), or None.

    With `always_bos`, always its bos token, as in qlora.py.
    """
    first = tokenizer.bos_token_id
    if always_bos:
        return first
    ids = tokenizer(["a"], add_special_tokens=True)["input_ids"][0]
    return first if first is not None and ids and ids[0] == first else None


def special_tokens(tokenizer: Tokenizer) -> list[str]:
    """Strings that become one control token wherever they stand in a text."""
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]


def fingerprint(tokenizer: Tokenizer) -> str:
    """Hash of everything that decides how text becomes ids: vocabulary, merges, added tokens, normalisation."""
    specials = repr((tokenizer.bos_token_id, tokenizer.eos_token_id, opening_id(tokenizer)))
    state = tokenizer.backend_tokenizer.to_str() + specials
    return hashlib.blake2b(state.encode("utf-8", "replace"), digest_size=16).hexdigest()
