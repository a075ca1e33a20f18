"""Which base model, and how it is loaded."""

from typing import Literal

from pydantic import Field

from qlora_tui.config.spec import Spec

STARTER = "starter"
"""The id of the bundled demonstration model and of its data."""

Attention = Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Device = Literal["auto", "cpu", "cuda"]


class ModelSpec(Spec):
    id: str = Field(default=STARTER, min_length=1)
    """Base model: "starter" (bundled), a local folder, or a hub id such as "meta-llama/Llama-3.1-8B"."""

    revision: str | None = None
    """Hub branch, tag or commit. Empty means the default branch; the commit used is recorded in plan.json."""

    trust_remote_code: bool = False
    """Run Python code that comes with the model. Off: such models are refused."""

    allow_pickle: bool = False
    """Load weights stored as pickle (pytorch_model.bin) where there are no safetensors. Only tensors are read: code in
    the file never runs, and a file with other objects is refused. If false, models without safetensors are refused."""

    attention: Attention = "auto"
    """Attention implementation. "auto" takes the fastest one that is installed and works for the model."""

    dtype: Dtype = "auto"
    """Dtype of weights that are not quantized. "auto": bfloat16 on GPUs that have it, float32 on CPU."""

    device: Device = "auto"
    """Where to train. "auto": the GPU with most free memory, else the CPU. CUDA_VISIBLE_DEVICES=1 leaves it GPU 1."""
