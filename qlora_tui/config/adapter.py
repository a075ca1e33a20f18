"""What is trained: LoRA matrices on chosen linear layers, or every weight."""

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from qlora_tui.config.spec import Spec

RankOf = Annotated[str, StringConstraints(pattern=r"^[^=\s]+=[1-9][0-9]{0,3}$")]
AlphaOf = Annotated[str, StringConstraints(pattern=r"^[^=\s]+=[0-9]*\.?[0-9]+$")]


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

    exclude_modules: str | list[str] = ""
    """Modules that get no matrices although `target_modules` names them: a list of names, or a regular expression."""

    layers_to_transform: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    """Numbers of the layers that get matrices, from 0. Empty: all layers."""

    rank_pattern: list[RankOf] = Field(default_factory=list)
    """Ranks of single modules, such as "q_proj=32". The name is the end of a module's path or a regular expression."""

    alpha_pattern: list[AlphaOf] = Field(default_factory=list)
    """Alphas of single modules, such as "q_proj=64", named as in `rank_pattern`."""

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

    @field_validator("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern")
    @classmethod
    def _valid_expressions(cls, given: str | list[str], info: ValidationInfo) -> str | list[str]:
        """Refuse an invalid regular expression: a text of module names, or the part of a pattern before its "="."""
        texts = (
            [given] if isinstance(given, str) else given if info.field_name in ("rank_pattern", "alpha_pattern") else []
        )
        for pattern in (text.partition("=")[0] for text in texts):
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a valid regular expression: {error}") from error
        return given

    @property
    def ranks(self) -> dict[str, int]:
        """Ranks of single modules by the pattern of their name."""
        return {name: int(rank) for name, _, rank in (text.partition("=") for text in self.rank_pattern)}

    @property
    def alphas(self) -> dict[str, float]:
        """Alphas of single modules by the pattern of their name."""
        return {name: float(alpha) for name, _, alpha in (text.partition("=") for text in self.alpha_pattern)}
