"""Greedy answers to a few prompts, for samples, checks and scores."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from qlora_tui.data.spans import Conversation
from qlora_tui.engine.chat_model import context_max_tokens
from qlora_tui.engine.chat_text import turn_end_ids, turn_end_text
from qlora_tui.engine.prompts import Prompts


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """Every token that ends an answer: the tokenizer's, the model's and the one the chat template writes after it."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured] if configured is not None else []
    return sorted({tokenizer.eos_token_id, *ids, *turn_end_ids(tokenizer)})


def room(model: Any, tokenizer: Any, prompt_tokens: int, max_tokens: int) -> int:
    """How many tokens an answer may have, `max_tokens` at most, before the model's context ends; at least one."""
    return max(1, min(max_tokens, context_max_tokens(model, tokenizer) - prompt_tokens))


@torch.no_grad()
def answer(
    model: Any, prompts: Prompts, conversations: Sequence[Conversation], *, max_tokens: int, batch_size: int = 16
) -> Iterator[str]:
    """Yield the greedy answer to each conversation, in order, computed in batches padded on the left."""
    for start in range(0, len(conversations), batch_size):
        rows = [prompts.ids(one.turns, one.tools) for one in conversations[start : start + batch_size]]
        yield from continuations(model, prompts.tokenizer, rows, max_tokens=max_tokens, batch_size=batch_size)


@torch.no_grad()
def continuations(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], *, max_tokens: int, batch_size: int = 16
) -> Iterator[str]:
    """Yield the greedy answer to each prompt of token ids, in order, computed in batches padded on the left."""
    stops, end = stop_ids(model, tokenizer), turn_end_text(tokenizer)
    with evaluating(model), autocast(model):
        for start in range(0, len(prompts), batch_size):
            rows = prompts[start : start + batch_size]
            width = max(len(row) for row in rows)
            ids = torch.full((len(rows), width), tokenizer.pad_token_id)
            mask = torch.zeros_like(ids)
            for number, row in enumerate(rows):
                ids[number, width - len(row) :] = torch.tensor(row)
                mask[number, width - len(row) :] = 1
            output = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=room(model, tokenizer, width, max_tokens),
                do_sample=False,
                eos_token_id=stops,
                pad_token_id=tokenizer.pad_token_id,
                use_cache=True,
            )
            for row in output[:, width:]:
                text: str = tokenizer.decode(row, skip_special_tokens=True)
                yield text.strip().removesuffix(end).strip()


def autocast(model: Any) -> Any:
    """Mixed precision as in training, where the trainer switches it on for the forward pass of its own alone.

    The original recipe needs it: its float32 norms feed a head in bfloat16. So do modules trained in full, in float32:
    a head among them counts as it was.
    """
    head = model.get_output_embeddings()
    dtype = getattr(head, "original_module", head).weight.dtype
    return torch.autocast(model.device.type, dtype=dtype, enabled=dtype in (torch.bfloat16, torch.float16))


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Dropout off, and the model's key-value cache on, for the time of the block."""
    training, use_cache = model.training, model.config.use_cache
    model.eval()
    model.config.use_cache = True
    try:
        yield
    finally:
        model.config.use_cache = use_cache
        model.train(training)
