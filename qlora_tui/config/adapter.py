"""What is trained: LoRA matrices on chosen linear layers, or every weight."""

from typing import Literal

from pydantic import Field

from qlora_tui.config.spec import Spec


class AdapterSpec(Spec):
    kind: Literal["lora", "full"] = "lora"
    """lora: train low-rank matrices beside frozen weights. full: train every weight (needs quantization none)."""

    rank: int = Field(default=16, ge=1, le=4096)
    """Rank r of the LoRA matrices. Trainable parameters grow linearly with it."""

    alpha: float = Field(default=16, gt=0)
    """Scale of the update: alpha / rank (alpha / sqrt(rank) with rank-stabilised LoRA)."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input. Above 0 costs activation memory."""

    target_modules: str | list[str] = "all-linear"
    """"all-linear" (every linear layer but the output head), a list of module names, or a regular expression."""

    rank_stabilized: bool = False
    """rsLoRA: scale by alpha / sqrt(rank), so high ranks keep learning."""

    dora: bool = False
    """DoRA: train the magnitude of each weight apart from its direction. Slower, a little more memory."""

    init: Literal["default", "pissa", "loftq"] = "default"
    """Start of the matrices. pissa: principal components of the weight; loftq: to cancel the quantization error."""

    modules_to_save: list[str] = Field(default_factory=list)
    """Modules trained in full and saved with the adapter, such as "embed_tokens" or "lm_head"."""

    lora_plus_ratio: float | None = Field(default=None, gt=0)
    """LoRA+: learning rate of the B matrices as a multiple of that of the A matrices (paper: 16). Empty: off."""
