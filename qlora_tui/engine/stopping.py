"""Write stop tokens where other programs read them: the generation configuration and the tokenizer."""

import copy
from typing import Any

from transformers import GenerationConfig

from qlora_tui.engine import generate
from qlora_tui.engine.chat_text import turn_end_ids


def repair_generation_config(model: Any) -> str | None:
    """Replace a generation configuration that transformers refuses to save; return the reason.

    Only the special tokens are kept; conflicting sampling settings are dropped.
    """
    found = model.generation_config
    try:
        found.validate(strict=True)
    except ValueError as error:
        special = {name: getattr(found, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**special)
        return next(line.strip() for line in reversed(str(error).splitlines()) if line.strip())
    return None


def stop_at_turn_ends(model: Any, tokenizer: Any) -> None:
    """Make plain `generate` stop where answers of this chat template end."""
    model.generation_config.eos_token_id = generate.stop_ids(model, tokenizer)


def published_tokenizer(tokenizer: Any) -> Any:
    """Return the tokenizer with the end-of-turn token as its eos token, if that is a single token."""
    ends = turn_end_ids(tokenizer)
    if not ends or ends[0] == tokenizer.eos_token_id:
        return tokenizer
    published = copy.deepcopy(tokenizer)
    published.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    return published
