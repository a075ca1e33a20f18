"""The six-layer model whose dimensions all differ, so that the shape of a tensor names its dimensions."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
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
    "B": 9, "S": 130, "h": 280, "f": 536, "H": 35, "K": 5, "d": 40, "V": 1201, "r": 13, "L": MINIATURE_LAYERS,
}  # fmt: skip
TOKEN_TILE, VOCABULARY_TILE = 877, 467
"""The tiles of the loss, made smaller than the miniature's own dimensions so that they show in shapes."""

SHORT_WINDOW, LONG_WINDOW = 64, 4096

_SINGLE: Mapping[str, int] = {"B": 1, "S": 1170}
"""One row, of as many tokens as the rows of the others have together."""

_AS_WIDE: Mapping[str, int] = {"h": 1960, "d": 56}
"""Dimensions of the families whose heads together are as wide as the model: of these and of the next."""

_UNROTATED = ("gpt2", "opt", "bloom")
_POSITIONS: Mapping[str, tuple[str, int]] = {"gpt2": ("n_positions", 0), "opt": ("max_position_embeddings", 2)}
"""Families with an embedding for each position: its setting, and by how many its rows are more."""
_ROTATED_IN_PART = ("gpt_neox", "phi", "stablelm")

_PAIRS_ROTATED = ("glm", "glm4")
"""Families that rotate a part of each head, two features that are neighbours at a time."""

_MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss")
_MIXTURE: Mapping[str, int] = {"E": 11, "t": 6, "m": 104, "ms": 152}
_WIDTH_OF_AN_EXPERT = {"qwen2_moe": "moe_intermediate_size", "qwen3_moe": "moe_intermediate_size"}
"""What the config calls it where `intermediate_size` is that of a dense MLP."""

_EXTRA: Mapping[str, Mapping[str, Any]] = {
    "phi3": {"pad_token_id": 0},
    "glm": {"pad_token_id": 0, "attention_bias": True},
    "glm4": {"pad_token_id": 0, "attention_bias": True},
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
_ALWAYS_ALIKE = (
    {"H", "K", "BH"}, {"h", "q", "k"}, {"d", "rot"}, {"d2", "rot2"}, {"n", "S"}, {"n1", "S1"}, {"qkv", "3h"},
)  # fmt: skip
"""Dimensions that are the same where each head has keys and values of its own, where heads are as wide as the model, or
for a batch of one row."""


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
        found["rot"] = 14
    if family in _PAIRS_ROTATED:
        found["rot"] = 24
    if family.removesuffix(UNGROUPED) == "bloom":
        found["f"] = 4 * found["h"]
    if family.removesuffix(UNGROUPED) in _POSITIONS:
        found["P"] = 1303
    if family in _MIXTURES:
        found.update(_MIXTURE)
    return found


def symbols_of_values(family: str, *, single: bool = False) -> dict[int, str]:
    """For each dimension of a family's miniature its name. `single`: of a batch of one row."""
    names: dict[int, str] = {}
    for name, value in named_sizes(family, single=single).items():
        names.setdefault(value, name)
    return names


def named_sizes(family: str, *, single: bool = False) -> dict[str, int]:
    """The dimensions of a family's miniature that a tensor may have as a side: those above 1."""
    full = dimensions(dims(family, single=single))
    full |= {
        "tok": TOKEN_TILE,
        "tokL": full["n1"] - TOKEN_TILE,
        "ch": VOCABULARY_TILE,
        "chL": full["V"] % VOCABULARY_TILE,
    }
    return {name: value for name, value in full.items() if name not in _SCALARS and value > 1}


def confused(family: str, *, single: bool = False) -> list[tuple[str, str]]:
    """Pairs of dimensions that have the same size in a family's miniature and need not have it in its models."""
    sizes = named_sizes(family, single=single)
    pairs = [(one, other) for one, other in combinations(sizes, 2) if sizes[one] == sizes[other]]
    return [pair for pair in pairs if not any(set(pair) <= alike for alike in _ALWAYS_ALIKE)]


def config(family: str, *, windowed: bool) -> Any:
    """transformers' config of the miniature of a family. `windowed`: its sliding window is shorter than a row."""
    sizes, family = dims(family), family.removesuffix(UNGROUPED)
    extra = dict(_EXTRA.get(family, {}))
    if "rot" in sizes:
        extra["partial_rotary_factor"] = sizes["rot"] / sizes["d"]
    if family in _POSITIONS:
        setting, more = _POSITIONS[family]
        extra[setting] = sizes["P"] - more
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
