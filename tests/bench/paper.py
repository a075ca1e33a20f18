"""The QLoRA paper's Figure 6, component by component: LLaMA at batch 1, 512 tokens, checkpointing, rank 64.

The paper's figures in MiB (totals in GiB) and why ours differ:

- Model: its bars lie 0.3 to 0.6 GiB above NF4 weights without double quantization and with float32 embedding and head.
- Adapter: its bars are 18 x hidden x rank x layers weights in 16 bits, those of four square matrices and a plain MLP
  four times as wide. LLaMA's gated MLP has three matrices, 2.7 times as wide: 6 % more.
- Optimizer: twice float32 for each of those weights, so four adapters, and 6 % more here for the same reason.
- Total: with what can be paged, the CUDA context and fragmentation.
"""

from dataclasses import replace

from qlora_tui.config.overrides import resolve
from qlora_tui.memory.device import GIB, card
from qlora_tui.memory.estimate import Estimate, estimate, verdict
from qlora_tui.models import describe
from tests.bench.report import Ratio

_MIB = 1 << 20
_FIGURE = {
    "7b": (5046, 288, 1152, 6.9),
    "13b": (8476, 450, 1800, 11.3),
    "30b": (19302, 877.5, 3510, 24.7),
    "65b": (37074, 1440, 5760, 45.0),
}
_CARDS_GB = {"7b": 8, "13b": 12, "30b": 24, "65b": 48}
"""On which each is to fit, with double quantization."""


def measure() -> list[Ratio]:
    """Ours beside the figure, then what is needed beside what is free."""
    lines = []
    for size, (model, adapter, optimizer, total) in _FIGURE.items():
        found = _estimate(size, "quantization.double_quantization=false")
        terms = {term.key: term.bytes / _MIB for term in found.terms}
        tables = 2 * terms["tables"]  # in float32, as they are while the model is prepared
        ours = terms["packed_weights"] + terms["quantization_constants"] + tables + terms["other_weights"]
        name = f"LLaMA {size} beside Figure 6"
        lines += [
            Ratio(f"{name}, model, MiB", ours, model, 1.0, at_least=False),
            Ratio(f"{name}, adapter, MiB", terms["adapter"], adapter, 1.07, at_least=False),
            Ratio(f"{name}, optimizer, MiB", terms["optimizer_paged"], optimizer, 1.07, at_least=False),
            Ratio(f"{name}, total, GiB", found.full_bytes / GIB, total, 1.05, at_least=False),
        ]
    return [*lines, *(_on_its_card(size, size_gb) for size, size_gb in _CARDS_GB.items())]


def _on_its_card(size: str, size_gb: int) -> Ratio:
    found, free_bytes = _estimate(size), card(size_gb).free_bytes
    answer = verdict(replace(found, device=card(size_gb)), free_bytes).answer
    what = f"LLaMA {size} on {size_gb} GB: {answer}; highest need without what can be paged, GiB"
    return Ratio(what, found.high_bytes / GIB, free_bytes / GIB, 1.0, at_least=False)


def _estimate(size: str, *settings: str) -> Estimate:
    model = f"huggyllama/llama-{size}"
    config = resolve(
        overrides=[f"model.id={model}", "training.recipe=original", "training.micro_batch_size=1",
                   "training.max_length_tokens=512", "training.gradient_checkpointing=on", "adapter.rank=64", *settings]
    )  # fmt: skip
    return estimate(config, describe(model, network=False), card(80), replay=True)
