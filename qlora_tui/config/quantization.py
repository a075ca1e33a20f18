"""How the base weights are stored while the adapter trains."""

from typing import Literal

from qlora_tui.config.model import Dtype
from qlora_tui.config.spec import Spec

QuantizationKind = Literal["none", "8bit", "nf4", "fp4"]
FOUR_BIT: frozenset[str] = frozenset({"nf4", "fp4"})


class QuantizationSpec(Spec):
    kind: QuantizationKind = "nf4"
    """Storage of the base weights: nf4 (4-bit NormalFloat), fp4 (4-bit float), 8bit (LLM.int8()), none (16/32-bit)."""

    double_quantization: bool = True
    """Quantize the absmax constants as well: 4.127 instead of 4.5 bits per weight. Needs nf4 or fp4."""

    compute_dtype: Dtype = "auto"
    """Dtype in which 4-bit weights are multiplied. "auto": bfloat16 where native, else float32 (CPU) or float16."""

    quant_storage: Literal["uint8", "bfloat16", "float16", "float32"] = "uint8"
    """Container dtype of the packed 4-bit weights. Sharded training (FSDP) needs it equal to the compute dtype."""

    @property
    def is_four_bit(self) -> bool:
        return self.kind in FOUR_BIT
