"""Measures how fast this machine multiplies weights: `python -m qlora_tui.engine.speed REQUEST`.

REQUEST is JSON: {"device": "cpu" or "cuda", "quantization": as quantization.kind, "dtype": of the arithmetic}.
Writes one JSON object to stdout, the fields of `forecast.speed.Speed`. Takes a few seconds, most to import PyTorch.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from qlora_tui.engine import environment

_WIDTH = {"cpu": 1024, "cuda": 4096}
_FEW_TOKENS, _MANY_TOKENS = 8, 512
_TINY = 64
_ROUNDS = 6
_ROUND_S = 0.1
"""Every round measures everything for so long. The fastest repetition of all rounds counts, so that a moment in which
other programs use the processor does not."""


def main() -> int:
    environment.prepare(allow_download=False)
    os.nice(5)
    request = json.loads(sys.argv[1])
    out, sys.stdout = sys.stdout, sys.stderr
    out.write(json.dumps(_measured(request["device"], request["quantization"], request["dtype"])))
    return 0


def _measured(device: str, quantization: str, dtype: str) -> dict[str, float]:
    width = _WIDTH[device]
    passes = {
        "op": _passes(_TINY, 1, device, "none", dtype),
        "call": _passes(_TINY, 1, device, quantization, dtype),
        "few": _passes(width, _FEW_TOKENS, device, quantization, dtype),
        "many": _passes(width, _MANY_TOKENS, device, quantization, dtype),
    }
    best = dict.fromkeys(passes, float("inf"))
    for _ in range(_ROUNDS):
        for name, once in passes.items():
            best[name] = min(best[name], _fastest(once, device))
    weights = width * width
    flop_s = max(best["many"] - best["few"], 1e-9) / (4 * weights * (_MANY_TOKENS - _FEW_TOKENS))
    weight_s = max(best["few"] - best["call"] - 4 * weights * _FEW_TOKENS * flop_s, 0.0) / weights
    return {"weight_s": weight_s, "flop_s": flop_s, "call_s": best["call"], "op_s": best["op"]}


def _passes(width: int, tokens: int, device: str, quantization: str, dtype: str) -> Callable[[], None]:
    """A forward and a backward pass through one layer whose weight is not trained."""
    import torch

    kind = getattr(torch, dtype)
    layer = _layer(width, quantization, kind).to(device)
    layer.requires_grad_(False)
    rows = torch.randn(tokens, width, device=device, dtype=kind, requires_grad=True)

    def once() -> None:
        rows.grad = None
        layer(rows).sum().backward()

    return once


def _layer(width: int, quantization: str, dtype: Any) -> Any:
    import torch

    if quantization == "none":
        return torch.nn.Linear(width, width, bias=False, dtype=dtype)
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    if quantization == "8bit":
        return Linear8bitLt(width, width, bias=False, has_fp16_weights=False, threshold=6.0)
    layer = Linear4bit(width, width, bias=False, compute_dtype=dtype, quant_type=quantization)
    layer.support_avx512bf16_for_cpu = False  # as in training
    return layer


def _fastest(once: Callable[[], None], device: str) -> float:
    import torch

    once()
    best, until_s = float("inf"), time.monotonic() + _ROUND_S
    while time.monotonic() < until_s or best == float("inf"):
        began_s = time.monotonic()
        once()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.monotonic() - began_s)
    return best


if __name__ == "__main__":
    raise SystemExit(main())
