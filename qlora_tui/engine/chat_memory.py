"""The key-value cache of a chat, kept across turns for as long as a prompt begins as the one before it."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

PREFILL_TOKENS = 512
"""Prompt tokens computed between two looks at whether the answer was cancelled."""


class Memory:
    """A key-value cache and the tokens it stands for."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self._ids: list[int] = []
        self.cache = _new_cache(config)

    def keep_common(self, prompt: list[int]) -> int:
        """Cut the cache back to what it shares with `prompt`, less the last token, and return its length in tokens.

        A cache that cannot be cut is dropped, unless the prompt only adds to it.
        """
        common = 0
        for old, new in zip(self._ids, prompt[:-1], strict=False):
            if old != new:
                break
            common += 1
        if common < len(self._ids):
            if _can_be_cut(self.cache):
                self.cache.crop(common - len(self._ids))
            else:
                self.cache, common = _new_cache(self._config), 0
        self._ids = prompt[:common]
        return common

    def prefill(self, model: Any, prompt: list[int], is_cancelled: Callable[[], bool]) -> bool:
        """Compute the prompt but for a last chunk, which `generate` takes on; False when cancelled before the end."""
        while len(prompt) - len(self._ids) > PREFILL_TOKENS:
            if is_cancelled():
                return False
            end = len(self._ids) + PREFILL_TOKENS
            chunk = torch.tensor([prompt[len(self._ids) : end]], device=model.device)
            model(input_ids=chunk, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
            self._ids = prompt[:end]
        return not is_cancelled()

    def remember(self, ids: list[int]) -> None:
        """Note what the cache holds by now: everything but the newest token, which no step has read yet."""
        self._ids = ids[: self.cache.get_seq_length()]


def _new_cache(config: Any) -> DynamicCache:
    """Where every layer is attention, one that keeps all tokens beyond a sliding window too: it can be cut anywhere."""
    fitting = DynamicCache(config=config)
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in fitting.layers)
    return DynamicCache() if plain else fitting


def _can_be_cut(cache: DynamicCache) -> bool:
    return all(type(layer) is DynamicLayer for layer in cache.layers)
