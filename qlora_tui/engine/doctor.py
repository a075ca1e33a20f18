"""Whether the torch stack works here, tried and not believed: `python -m qlora_tui.engine.doctor`.

Prints one finding a line as JSON; `qlora_tui.checks` reads them.
"""

import json
import os
import warnings
from collections.abc import Iterator

from qlora_tui import hardware
from qlora_tui.checks import Finding
from qlora_tui.engine import environment
from qlora_tui.runs.versions import LIBRARIES, library_versions

_FP4_ERROR = 0.2
"""Largest mean error, relative to the mean magnitude, that 4-bit weights may have: NF4 has about 0.1."""


def main() -> None:
    environment.prepare(allow_download=False)
    warnings.simplefilter("ignore")
    for finding in findings():
        print(json.dumps(finding.as_json()), flush=True)


def findings() -> Iterator[Finding]:
    """Libraries, then PyTorch's devices, then quantization on each of them."""
    versions = library_versions()
    broken = False
    for name in LIBRARIES:
        problem = environment.import_problem(name)
        broken = broken or problem is not None
        if problem is None:
            yield Finding(name, "ok", versions.get(name, "unknown version"))
        else:
            yield Finding(name, "broken", problem, f"Install it: pip install --force-reinstall {name}")
    if broken:
        return
    yield _cuda()
    for device in _devices():
        yield _four_bit(device)


def _cuda() -> Finding:
    """Whether PyTorch reaches the GPUs that the driver shows."""
    import torch

    gpus = len(hardware.snapshot().gpus)
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    if torch.cuda.is_available():
        bf16 = "with" if torch.cuda.is_bf16_supported(including_emulation=False) else "without"
        return Finding("PyTorch on GPU", "ok", f"{build}, {torch.cuda.device_count()} GPUs, {bf16} bfloat16")
    if not gpus:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        reason = "there is no GPU" if shown is None else f"CUDA_VISIBLE_DEVICES={shown} shows no GPU"
        return Finding("PyTorch on GPU", "note", f"{build}; {reason}")
    if not torch.version.cuda:
        remedy = "Install a CUDA build of PyTorch: https://pytorch.org/get-started/locally"
        return Finding("PyTorch on GPU", "broken", f"{build}, but the driver shows {gpus} GPUs", remedy)
    try:
        torch.cuda.init()
        reason = "no GPU is usable"
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
    remedy = "Update the NVIDIA driver, or install PyTorch for an older CUDA; check CUDA_VISIBLE_DEVICES."
    return Finding("PyTorch on GPU", "broken", f"{build}, driver {hardware.snapshot().driver}: {reason}", remedy)


def _devices() -> list[str]:
    import torch

    return ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]


def _four_bit(device: str) -> Finding:
    """Quantize a small matrix to NF4, multiply with it, and compare with the exact product."""
    import torch
    from bitsandbytes import functional

    subject = f"bitsandbytes on {device}"
    remedy = "Install the bitsandbytes that belongs to this PyTorch and CUDA: python -m bitsandbytes"
    try:
        weight = torch.randn(128, 128, generator=torch.Generator().manual_seed(0)).to(device)
        packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        restored = functional.dequantize_4bit(packed, state)
        error = ((restored - weight).abs().mean() / weight.abs().mean()).item()
    except Exception as failure:  # a missing symbol or kernel raises anything: that it does is the finding
        reason = f"{type(failure).__name__}: {failure}".splitlines()[0]
        return Finding(subject, "broken", f"cannot quantize to 4 bits: {reason}", remedy)
    if not error < _FP4_ERROR:
        return Finding(subject, "broken", f"4-bit weights are wrong: mean error {error:.0%}", remedy)
    return Finding(subject, "ok", f"NF4 with double quantization works, mean error {error:.1%}")


if __name__ == "__main__":
    main()
