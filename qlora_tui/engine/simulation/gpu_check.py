"""Measured beside predicted on this machine's GPU: `python -m qlora_tui.engine.simulation.gpu_check [--big]`.

Models of real shapes with random weights; nothing is downloaded. The measured step is the product's own, with real
kernels; only the optimizer's states are made as optimizer.py says instead of by the optimizer.
"""

from qlora_tui.engine import environment

if __name__ == "__main__":  # Imported by a test, it must leave the environment alone.
    environment.prepare(allow_download=False)

import argparse
import gc
import json
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any

import torch

from qlora_tui.config.run import RunConfig
from qlora_tui.engine.resolve import resolve
from qlora_tui.engine.simulation import base_model
from qlora_tui.engine.simulation.hf_config import of_model
from qlora_tui.engine.simulation.ledger import Ledger
from qlora_tui.engine.simulation.scratch import Gpu
from qlora_tui.engine.simulation.settings import GpuSettings
from qlora_tui.engine.simulation.simulate import Run, Workload, simulate
from qlora_tui.engine.simulation.tracking import Tracker
from qlora_tui.memory.allocator import replay

MODELS = ("meta-llama/Llama-3.2-1B", "huggyllama/llama-7b")
BIG = ("Qwen/Qwen2.5-14B", "huggyllama/llama-30b", "huggyllama/llama-65b")
TOKENS = (512, 1024, 2048)
RECIPES = ("lean", "original")


def this_gpu() -> Gpu:
    """What decides the kernels on the first CUDA device."""
    found = torch.cuda.get_device_properties(0)
    return Gpu(found.multi_processor_count, found.major, found.minor)


def run_config(model: str, recipe: str) -> RunConfig:
    """One row a step, all linear layers, NF4."""
    return RunConfig.model_validate(
        {
            "model": {"id": model, "attention": "sdpa", "device": "cuda"},
            "training": {
                "recipe": recipe,
                "micro_batch_size": 1,
                "gradient_accumulation_steps": 1,
                "gradient_checkpointing": "on",
                "optimizer": "adamw_bnb_8bit",
            },
        }
    )


def measured(config: RunConfig, hf_config: Any, workload: Workload) -> dict[str, int]:
    """The step on the GPU itself: allocated and reserved bytes at most, as torch counts them."""
    chosen = resolve(config)
    settings = GpuSettings(**{item.name: getattr(chosen, item.name) for item in fields(chosen)})
    _empty()
    with torch.device(settings.device), tempfile.TemporaryDirectory() as output:
        model = base_model.on_meta(hf_config, config, settings)
        idle = Tracker(Ledger(), workload.gpu, answers=False)
        run = Run(config, settings, workload, idle, model, lambda stage: None)
        run.prepare(Path(output))
        torch.cuda.synchronize()
        run.step(nullcontext)
        torch.cuda.synchronize()
        found = {
            "allocated": torch.cuda.max_memory_allocated(),
            "reserved": torch.cuda.max_memory_reserved(),
        }
    del model, run, idle
    _empty()
    return found


def _empty() -> None:
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def compare(model: str, recipe: str, tokens: int) -> dict[str, Any]:
    """Predicted and measured bytes of one step from loading on, and the errors in percent."""
    config, workload = run_config(model, recipe), Workload(tokens=tokens, gpu=this_gpu())
    found = simulate(config, of_model(config.model), workload)
    predicted = {
        "allocated": max(found.phase_peaks.values()),
        "reserved": replay(found.ledger.trace()).reserved_bytes,
    }
    real = measured(config, of_model(config.model), workload)
    errors = {f"{name}_error_percent": round(100 * (predicted[name] / real[name] - 1), 2) for name in real}
    return {
        "model": model,
        "recipe": recipe,
        "tokens": tokens,
        **{f"predicted_{name}": size for name, size in predicted.items()},
        **{f"measured_{name}": size for name, size in real.items()},
        **errors,
    }


def rows(models: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for model, recipe, tokens in product(models, RECIPES, TOKENS):
        yield compare(model, recipe, tokens)


def main() -> None:
    """Print one JSON object a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--big", action="store_true", help="14B, 33B and 65B as well")
    chosen = parser.parse_args()
    print(json.dumps({"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__}), flush=True)
    for row in rows(MODELS + (BIG if chosen.big else ())):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
