"""The size of a tensor as a product of named dimensions, and what those dimensions are for a model."""

from collections.abc import Mapping

from qlora_tui.memory.allocator import rounded

BLOCK = 64
"""Weights that share one absmax."""

CONSTANTS = "constants"
"""In the place of an item size: float32 constants of a weight, one for each block of it; none without `dq`."""

TOKEN_TILE = 4096
VOCABULARY_TILE = 32768
"""Tile of TRL's loss: so many tokens by so many words at a time."""

SizeSymbols = tuple[float | int | str, tuple[str | int, ...]]
"""Bytes of one element (or CONSTANTS), and the dimensions."""


def dimensions(dims: Mapping[str, int]) -> dict[str, int]:
    """All dimensions a program may name, from the basic ones that `program.evaluate` lists."""
    full = {"dq": 1, "every": 0, **dims}
    rows, tokens, heads, groups, size = full["B"], full["S"], full["H"], full["K"], full["d"]
    scored = rows * (tokens - 1)
    q, k = heads * size, groups * size
    full |= {
        "q": q,
        "k": k,
        "n": rows * tokens,
        "n1": scored,
        "S1": tokens - 1,
        "Sp": tokens + 1,
        "d2": size // 2,
        # A single group of keys and values is expanded to all heads without a copy.
        "g": heads // groups if groups > 1 else 1,
        "BH": rows * heads,
        "S128": _up(tokens, 128),
        "S32": _up(tokens, 32),
        "S16": _up(tokens, 16),
        "S8": _up(tokens, 8),
        "d32": _up(size, 32),
        "qkv": q + 2 * k,
        "f2": 2 * full["f"],
        "tok": min(scored, TOKEN_TILE),
        "tokL": 0 if scored <= TOKEN_TILE else min(scored - TOKEN_TILE, TOKEN_TILE),
        "ch": VOCABULARY_TILE,
        "chV": min(full["V"], VOCABULARY_TILE),
    }
    return full


def charged_bytes(symbols: SizeSymbols, full: Mapping[str, int]) -> int:
    """Bytes the allocator charges for a tensor. `full`: what `dimensions` gave."""
    item, names = symbols
    elements = 1
    for name in names:
        elements *= full[name] if isinstance(name, str) else name
    if isinstance(item, str):
        return rounded(-(-elements // BLOCK) * 4) if full["dq"] else 0
    return rounded(round(elements * item))


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
