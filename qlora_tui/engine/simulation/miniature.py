"""The six-layer model whose dimensions all differ, so that the shape of a tensor names its dimensions."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import trl.kernels.chunked_logprob
import trl.trainer.utils
from transformers import AutoConfig

from qlora_tui.memory.recorded import MINIATURE_LAYERS
from qlora_tui.memory.symbols import dimensions

DIMS: Mapping[str, int] = {
    "B": 5, "S": 130, "h": 216, "f": 536, "H": 6, "K": 2, "d": 40, "V": 1201, "r": 7, "L": MINIATURE_LAYERS,
}  # fmt: skip
TOKEN_TILE, VOCABULARY_TILE = 487, 467
"""The tiles of the loss, made smaller than the miniature's own dimensions so that they show in shapes."""

SHORT_WINDOW, LONG_WINDOW = 64, 4096

_EXTRA: Mapping[str, Mapping[str, Any]] = {"phi3": {"pad_token_id": 0}}
_WINDOWED = frozenset({"gemma2", "gemma3_text", "mistral"})

_SCALARS = ("L", "dq")


def symbols_of_values() -> dict[int, str]:
    """For each dimension of the miniature its name."""
    full = dimensions(DIMS)
    scored = full["n1"]
    full |= {"tok": TOKEN_TILE, "tokL": scored - TOKEN_TILE, "ch": VOCABULARY_TILE, "chV": VOCABULARY_TILE}
    names: dict[int, str] = {}
    for name, value in full.items():
        if name not in _SCALARS and name != "chV":
            names.setdefault(value, name)
    return names


def config(family: str, *, masked: bool) -> Any:
    """transformers' config of the miniature of a family. `masked`: its sliding window is shorter than a row."""
    extra = dict(_EXTRA.get(family, {}))
    if family in _WINDOWED:
        extra["sliding_window"] = SHORT_WINDOW if masked else LONG_WINDOW
    return AutoConfig.for_model(
        family,
        vocab_size=DIMS["V"],
        hidden_size=DIMS["h"],
        intermediate_size=DIMS["f"],
        num_hidden_layers=DIMS["L"],
        num_attention_heads=DIMS["H"],
        num_key_value_heads=DIMS["K"],
        head_dim=DIMS["d"],
        tie_word_embeddings=False,
        **extra,
    )


def pads(family: str) -> bool:
    """Whether a mask in this family comes from padding; in the others from the sliding window."""
    return family not in _WINDOWED


@contextmanager
def small_tiles() -> Iterator[None]:
    """TRL's loss with tiles that the miniature can fill."""
    kernel: ModuleType = trl.kernels.chunked_logprob
    with (
        patch.object(kernel, "TOKEN_CHUNK_SIZE", TOKEN_TILE),
        patch.object(trl.trainer.utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", VOCABULARY_TILE),
    ):
        yield
