"""RunConfig: everything that decides a run, and the contradictions it refuses."""

from pydantic import model_validator

from qlora_tui.config.adapter import AdapterSpec
from qlora_tui.config.contradictions import refuse_contradictions
from qlora_tui.config.data import DataSpec
from qlora_tui.config.model import ModelSpec
from qlora_tui.config.quantization import QuantizationSpec
from qlora_tui.config.spec import Spec
from qlora_tui.config.training import TrainingSpec


class RunConfig(Spec):
    """One run, complete: what is frozen into run.toml."""

    model: ModelSpec = ModelSpec()
    quantization: QuantizationSpec = QuantizationSpec()
    adapter: AdapterSpec = AdapterSpec()
    data: DataSpec = DataSpec()
    training: TrainingSpec = TrainingSpec()

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> "RunConfig":
        refuse_contradictions(self)
        return self
