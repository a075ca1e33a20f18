"""The simulation beside what others measured on GPUs and published."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pytest

pytestmark = pytest.mark.long

GB = 1e9
GIB = 2**30

NF4_1B = {512: (0.882, 1.360), 1024: (0.891, 1.844), 2048: (0.891, 2.792), 3072: (0.891, 3.733)}
"""AnswerDotAI/fsdp_qlora, profiling notebook: torch.cuda.max_memory_allocated of a 1B Llama in NF4, LoRA r=8 on q and
v, non-reentrant checkpointing, float32 logits, loss = logits.mean(). Tokens: (GB when loaded, GB at the peak)."""

_QV = ["q_proj", "v_proj"]
_MLP = ["gate_proj", "up_proj", "down_proj"]
_NORMS = ["input_layernorm", "norm", "post_attention_layernorm"]
_IA3_DOWN = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
_IA3_ALL = {"target_modules": [*_MLP, *_QV, "k_proj", "o_proj"], "feedforward_modules": _MLP}
L40S: dict[str, tuple[str, dict[str, Any], float]] = {
    "lora r32": ("LoraConfig", {"r": 32, "target_modules": _QV}, 20.762),
    "lora r64": ("LoraConfig", {"r": 64, "target_modules": _QV}, 21.004),
    "lora r10 mlp": ("LoraConfig", {"r": 10, "target_modules": _MLP}, 23.002),
    "lora r32 dora": ("LoraConfig", {"r": 32, "target_modules": _QV, "use_dora": True}, 22.848),
    "norms": ("LNTuningConfig", {"target_modules": _NORMS}, 19.727),
    "ia3 k v down": ("IA3Config", _IA3_DOWN, 21.639),
    "ia3 all linear": ("IA3Config", _IA3_ALL, 24.350),
    "miss r64": ("MissConfig", {"r": 64, "target_modules": _QV}, 18.879),
    "hira r32": ("HiraConfig", {"r": 32, "target_modules": _QV}, 21.977),
    "vera r256": ("VeraConfig", {"r": 256, "target_modules": _QV}, 20.137),
}  # fmt: skip
"""huggingface/peft, method_comparison/MetaMathQA on an NVIDIA L40S with torch 2.13: GiB of max_memory_reserved for
Llama-3.2-3B in bfloat16, batch 4, no checkpointing, AdamW foreach, padded batches. (PEFT's class, options, GiB.)"""

L40S_TOKENS = 690
"""Length of the longest batch. It is not published; this one fits the first row, the others are predictions."""

L40S_SHORT_TOKENS = 110
"""Length of a batch before it, after which the benchmark empties the cache."""


@contextmanager
def simulated(settings: dict[str, Any], hf_config: dict[str, Any], gpu: tuple[int, int, int]) -> Iterator[Any]:
    """(bare model on data-less tensors, tracker, function that attaches an adapter) of a model in bfloat16."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoConfig

    from qlora_tui.config.run import RunConfig
    from qlora_tui.engine.simulation import base_model
    from qlora_tui.engine.simulation.cuda_paths import cuda_paths
    from qlora_tui.engine.simulation.ledger import Ledger
    from qlora_tui.engine.simulation.scratch import Gpu
    from qlora_tui.engine.simulation.settings import on_gpu
    from qlora_tui.engine.simulation.simulate import quiet_collector
    from qlora_tui.engine.simulation.tracking import Tracker

    config = RunConfig.model_validate(settings)
    chosen = on_gpu(config)
    tracker = Tracker(Ledger(), Gpu(*gpu), answers=True)
    with ExitStack() as stack:
        stack.enter_context(cuda_paths(padded=not config.quantization.is_four_bit, autocast=None))
        stack.enter_context(quiet_collector())
        model = base_model.on_meta(AutoConfig.for_model(**hf_config), config, chosen)
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(tracker)
        base_model.materialize(model, config, chosen, tracker)
        assert model.dtype == torch.bfloat16
        yield model, tracker


@pytest.mark.parametrize("tokens", sorted(NF4_1B))
def test_nf4_on_one_gpu(tokens: int) -> None:
    import torch
    from bitsandbytes.autograd._functions import MatMul4Bit
    from peft import LoraConfig, get_peft_model

    loaded, measured = NF4_1B[tokens]
    shape = {
        "model_type": "llama", "vocab_size": 32000, "hidden_size": 2048, "intermediate_size": 4096,
        "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16, "tie_word_embeddings": False,
    }  # fmt: skip
    forward = MatMul4Bit.forward

    def old_forward(ctx: Any, first: Any, second: Any, *rest: Any) -> Any:
        """bitsandbytes before 0.43.2 kept each product's input where checkpointing could not drop it."""
        result = forward(ctx, first, second, *rest)
        if any(ctx.needs_input_grad[:2]):
            ctx.tensors = (first, second)
        return result

    settings = {"model": {"dtype": "bfloat16"}, "quantization": {"double_quantization": False}}
    with (
        patch.object(MatMul4Bit, "forward", staticmethod(old_forward)),
        simulated(settings, shape, (48, 8, 6)) as (model, tracker),
    ):
        adapted = get_peft_model(
            model, LoraConfig(r=8, lora_alpha=32, lora_dropout=0.1, target_modules=["q_proj", "v_proj"])
        )
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.data = weight.data.to(torch.bfloat16)
        model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        model.enable_input_require_grads()
        adapted.train()
        stored = tracker.ledger.level_bytes
        tracker.ledger.reset_peak()
        ids = torch.zeros(1, tokens, dtype=torch.long)
        tracker.ledger.phase = "forward"
        output = adapted(input_ids=ids, use_cache=False)
        output["logits"] = output["logits"].float()
        loss = output["logits"].mean()
        tracker.ledger.phase = "backward"
        loss.backward()
        grown = (tracker.ledger.peak_bytes - stored) / GB
    assert loaded + grown == pytest.approx(measured, rel=0.005)


@pytest.mark.parametrize("name", L40S)
def test_bfloat16_methods_on_an_l40s(name: str) -> None:
    import peft
    import torch

    from qlora_tui.engine.simulation.optimizer import states
    from qlora_tui.memory.allocator import replay

    method, options, measured = L40S[name]
    shape = {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
        "tie_word_embeddings": True,
    }  # fmt: skip
    settings = {"model": {"dtype": "bfloat16"}, "quantization": {"kind": "none", "double_quantization": False}}
    with simulated(settings, shape, (142, 8, 9)) as (model, tracker):
        adapted = peft.get_peft_model(model, getattr(peft, method)(task_type="CAUSAL_LM", **options))
        adapted.train()
        weights = [weight for weight in adapted.parameters() if weight.requires_grad]
        kept = None
        for tokens in (L40S_SHORT_TOKENS, L40S_TOKENS):
            tracker.ledger.empty_cache()
            ids = torch.zeros(4, tokens, dtype=torch.long)
            tracker.ledger.phase = "forward"
            output = adapted(input_ids=ids, labels=ids, attention_mask=torch.ones_like(ids), use_cache=True)
            tracker.ledger.phase = "backward"
            output["loss"].backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            kept = kept or states("adamw_torch", weights)
            copies = [torch.empty_like(weight) for weight in weights]
            del copies
            for weight in weights:
                weight.grad = None
        trace = tracker.ledger.trace()
        del output
    reserved = replay(trace).reserved_bytes / GIB
    assert reserved == pytest.approx(measured, rel=0.01)
