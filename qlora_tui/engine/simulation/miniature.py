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

_SINGLE: Mapping[str, int] = {"B": 1, "S": 650}
"""One row, of as many tokens as the rows of the others have together."""

_AS_WIDE: Mapping[str, int] = {"h": 432, "d": 72}
"""Dimensions of the families whose heads together are as wide as the model: of these and of the next."""

_UNROTATED = ("gpt2", "opt", "bloom")
_ROTATED_IN_PART = ("gpt_neox", "phi", "stablelm")

_MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss")
_MIXTURE: Mapping[str, int] = {"E": 11, "t": 4, "m": 104, "ms": 152}
_WIDTH_OF_AN_EXPERT = {"qwen2_moe": "moe_intermediate_size", "qwen3_moe": "moe_intermediate_size"}
"""What the config calls it where `intermediate_size` is that of a dense MLP."""

_EXTRA: Mapping[str, Mapping[str, Any]] = {
    "phi3": {"pad_token_id": 0},
    "gpt2": {"n_inner": DIMS["f"], "tie_word_embeddings": True},
    "bloom": {"tie_word_embeddings": True},
    "opt": {"ffn_dim": DIMS["f"], "word_embed_proj_dim": _AS_WIDE["h"]},
    "smollm3": {"pad_token_id": 0, "no_rope_layers": [1, 1, 1, 0, 1, 0]},
}
WINDOWED: Mapping[str, str] = {"gemma3_text": "sssfss", "cohere2": "sssfsf"}
"""Families of which some layers have a sliding window (s) and the others none (f): those of the miniature. The typical
ones are the third and the fourth; the last two are of the kinds that models end with."""

_LAYER_TYPES = {"s": "sliding_attention", "f": "full_attention"}
_SCALARS = ("L", "dq", "every")


def dims(family: str, *, single: bool = False) -> Mapping[str, int]:
    """The basic dimensions of a family's miniature. `single`: of a batch of one row."""
    found = dict(DIMS)
    if single:
        found.update(_SINGLE)
    if family.endswith(UNGROUPED):
        found["K"] = found["H"]
    if family.removesuffix(UNGROUPED) in (*_UNROTATED, *_ROTATED_IN_PART):
        found.update(_AS_WIDE)
    if family.removesuffix(UNGROUPED) in _ROTATED_IN_PART:
        found["rot"] = 18
    if family.removesuffix(UNGROUPED) == "bloom":
        found["f"] = 4 * found["h"]
    if family in _MIXTURES:
        found.update(_MIXTURE)
    return found


def symbols_of_values(family: str, *, single: bool = False) -> dict[int, str]:
    """For each dimension of a family's miniature its name. `single`: of a batch of one row."""
    full = dimensions(dims(family, single=single))
    scored = full["n1"]
    full |= {"tok": TOKEN_TILE, "tokL": scored - TOKEN_TILE, "ch": VOCABULARY_TILE}
    names: dict[int, str] = {}
    for name, value in full.items():
        if name not in _SCALARS:
            names.setdefault(value, name)
    return names


def config(family: str, *, windowed: bool) -> Any:
    """transformers' config of the miniature of a family. `windowed`: its sliding window is shorter than a row."""
    sizes, family = dims(family), family.removesuffix(UNGROUPED)
    extra = dict(_EXTRA.get(family, {}))
    if "rot" in sizes:
        extra["partial_rotary_factor"] = sizes["rot"] / sizes["d"]
    if family in WINDOWED:
        extra["layer_types"] = [_LAYER_TYPES[kind] for kind in WINDOWED[family]]
        extra["sliding_window"] = SHORT_WINDOW if windowed else LONG_WINDOW
    if family in _MIXTURES:
        extra |= {
            "num_experts": sizes["E"],
            "num_local_experts": sizes["E"],
            "num_experts_per_tok": sizes["t"],
            "shared_expert_intermediate_size": sizes["ms"],
            _WIDTH_OF_AN_EXPERT.get(family, "intermediate_size"): sizes["m"],
        }
    return AutoConfig.for_model(
        family,
        vocab_size=sizes["V"],
        hidden_size=sizes["h"],
        num_hidden_layers=sizes["L"],
        num_attention_heads=sizes["H"],
        num_key_value_heads=sizes["K"],
        head_dim=sizes["d"],
        **{"tie_word_embeddings": False, "intermediate_size": sizes["f"], **extra},
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
