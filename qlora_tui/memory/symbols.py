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
    """All dimensions a program may name, from the basic ones.

    These are h hidden, f MLP width, L layers, H heads, K key-value heads, d head size, V vocabulary, B rows, S tokens a
    row, r LoRA rank; optional dq, 1 (default) with double quantization, 0 without; every, each so many layers comes one
    of the second kind; rot, the rotated features of a head where not all are; P, rows of the
    table of positions; of a mixture E experts, t of them for
    each token, m width of one, ms width of the shared one.
    """
    full = {"dq": 1, "every": 0, **dims}
    full.setdefault("rot", full["d"])
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
        "d3": 3 * size,
        "rot2": full["rot"] // 2,
        "unrot": size - full["rot"],
        # A single group of keys and values is expanded to all heads without a copy.
        "g": heads // groups if groups > 1 else 1,
        "BH": rows * heads,
        "S128": _up(tokens, 128),
        "S32": _up(tokens, 32),
        "d32": _up(size, 32),
        "qkv": q + 2 * k,
        "f2": 2 * full["f"],
        "tok": min(scored, TOKEN_TILE),
        "tokL": 0 if scored <= TOKEN_TILE else min(scored - TOKEN_TILE, TOKEN_TILE),
        "ch": VOCABULARY_TILE,
        "chL": full["V"] % VOCABULARY_TILE or VOCABULARY_TILE,
    }
    return full | _of_experts(full) if full.get("E") else full


def _of_experts(full: Mapping[str, int]) -> dict[str, int]:
    """Further dimensions of a mixture: gate and up projection are one, whose adapter has the rank of both."""
    return {"m2": 2 * full["m"], "nt": full["n"] * full["t"], "r2": 2 * full["r"]}


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
