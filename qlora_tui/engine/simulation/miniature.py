"""The six-layer model whose dimensions all differ, so that the shape of a tensor names its dimensions."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import trl.kernels.chunked_logprob
import trl.trainer.utils
from transformers import AutoConfig

from qlora_tui.memory.program import UNGROUPED
from qlora_tui.memory.recorded import MINIATURE_LAYERS
from qlora_tui.memory.symbols import dimensions

DIMS: Mapping[str, int] = {
    "B": 5, "S": 130, "h": 216, "f": 536, "H": 6, "K": 2, "d": 40, "V": 1201, "r": 7, "L": MINIATURE_LAYERS,
}  # fmt: skip
TOKEN_TILE, VOCABULARY_TILE = 487, 467
"""The tiles of the loss, made smaller than the miniature's own dimensions so that they show in shapes."""

SHORT_WINDOW, LONG_WINDOW = 64, 4096

_EXTRA: Mapping[str, Mapping[str, Any]] = {"phi3": {"pad_token_id": 0}}
WINDOWED: Mapping[str, str] = {"gemma3_text": "sssfss"}
"""Families of which some layers have a sliding window (s) and the others none (f): those of the miniature. The typical
ones are the third and the fourth."""

_LAYER_TYPES = {"s": "sliding_attention", "f": "full_attention"}
_SCALARS = ("L", "dq", "every")


def dims(family: str) -> Mapping[str, int]:
    """The basic dimensions of a family's miniature."""
    return {**DIMS, "K": DIMS["H"]} if family.endswith(UNGROUPED) else DIMS


def symbols_of_values(family: str) -> dict[int, str]:
    """For each dimension of a family's miniature its name."""
    full = dimensions(dims(family))
    scored = full["n1"]
    full |= {"tok": TOKEN_TILE, "tokL": scored - TOKEN_TILE, "ch": VOCABULARY_TILE, "chV": VOCABULARY_TILE}
    names: dict[int, str] = {}
    for name, value in full.items():
        if name not in _SCALARS and name != "chV":
            names.setdefault(value, name)
    return names


def config(family: str, *, windowed: bool) -> Any:
    """transformers' config of the miniature of a family. `windowed`: its sliding window is shorter than a row."""
    sizes, family = dims(family), family.removesuffix(UNGROUPED)
    extra = dict(_EXTRA.get(family, {}))
    if family in WINDOWED:
        extra["layer_types"] = [_LAYER_TYPES[kind] for kind in WINDOWED[family]]
        extra["sliding_window"] = SHORT_WINDOW if windowed else LONG_WINDOW
    return AutoConfig.for_model(
        family,
        vocab_size=sizes["V"],
        hidden_size=sizes["h"],
        intermediate_size=sizes["f"],
        num_hidden_layers=sizes["L"],
        num_attention_heads=sizes["H"],
        num_key_value_heads=sizes["K"],
        head_dim=sizes["d"],
        tie_word_embeddings=False,
        **extra,
    )


@contextmanager
def small_tiles() -> Iterator[None]:
    """TRL's loss with tiles that the miniature can fill."""
    kernel: ModuleType = trl.kernels.chunked_logprob
    with (
        patch.object(kernel, "TOKEN_CHUNK_SIZE", TOKEN_TILE),
        patch.object(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", VOCABULARY_TILE),
    ):
        yield
