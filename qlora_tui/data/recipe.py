"""Everything that decides how rows become tokens and labels, together, and the key of what comes out."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from qlora_tui.config.run import RunConfig
from qlora_tui.data.lengths import Limits
from qlora_tui.data.row_encoder import RowEncoder, Rules
from qlora_tui.data.templates import ChatTemplate, resolve
from qlora_tui.data.tokenizer import Tokenizer, fingerprint, require_fast

VERSION = 7
"""Raised when the same input would become other tokens or labels, so that older caches are not read."""


@dataclass(frozen=True)
class Recipe:
    tokenizer: Tokenizer
    template: ChatTemplate
    rules: Rules

    def encoder(self, on_rows: Callable[[int], None] = lambda rows: None) -> RowEncoder:
        return RowEncoder(self.tokenizer, self.template, self.rules, on_rows)

    @cached_property
    def _parts(self) -> list[Any]:
        return [VERSION, fingerprint(self.tokenizer), asdict(self.template), asdict(self.rules)]

    def key(self, rows: str) -> str:
        """Hash for `rows`, itself a hash of content and order, made tokens by this recipe."""
        parts = [*self._parts, rows]
        return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def recipe_of(config: RunConfig, tokenizer: Tokenizer) -> Recipe:
    """The recipe of a run. Raises DataError or ModelError when template or tokenizer cannot be trained with."""
    require_fast(tokenizer)
    data, training = config.data, config.training
    limits = Limits(
        max_tokens=training.max_length_tokens,
        policy=data.length_policy,
        side=data.truncation_side,
        source_max_tokens=data.source_max_tokens,
        target_max_tokens=data.target_max_tokens,
    )
    always_bos = training.recipe == "original"
    rules = Rules(limits, training.loss_on, data.system_prompt, data.skip_bad_rows, always_bos)
    return Recipe(tokenizer, resolve(data.template, tokenizer, always_bos=always_bos), rules)
